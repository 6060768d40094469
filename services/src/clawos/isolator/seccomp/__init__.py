"""Profiles of allowed system calls, and their compiler; used when the image is built, not when calls run."""

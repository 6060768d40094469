"""Programs that were not written for a sandbox, run in ours: what fails, and why."""

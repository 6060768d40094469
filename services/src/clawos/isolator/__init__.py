"""The isolator: runs one tool call in one sandbox."""

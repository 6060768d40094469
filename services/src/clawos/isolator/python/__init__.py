"""Tools that are Python files: what runs them, and the process that copies of are quicker than a new one."""

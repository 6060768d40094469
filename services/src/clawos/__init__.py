"""ClawOS: the operating system that holds the agent."""

__version__ = "0.1.0"

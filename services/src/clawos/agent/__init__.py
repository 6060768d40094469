"""The agent: sessions, the tool loop, the tool registry and the permission to run a call."""

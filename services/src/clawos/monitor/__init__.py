"""What happens on this machine, as the kernel tells it: rules judge it, people and programs can ask for it."""

"""What happens on this machine, as the kernel tells it: judged by rules, kept for those who ask."""

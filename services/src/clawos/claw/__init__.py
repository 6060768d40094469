"""The admin command of ClawOS: asks the services, systemd and the kernel, and says what it found."""

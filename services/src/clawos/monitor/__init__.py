"""What the kernel sees of processes, files and the network: loaded at boot, read and judged from then on."""

"""What a sandbox really calls, watched from outside by eBPF for `claw sandbox learn`; no part of the service."""

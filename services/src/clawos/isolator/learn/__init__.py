"""What a sandbox really calls, watched from outside by eBPF; used by `claw sandbox learn`, never by the service."""

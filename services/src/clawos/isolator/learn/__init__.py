"""What a sandbox really calls, watched from outside by eBPF: `claw sandbox learn`. No part of the service."""

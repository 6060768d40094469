"""What a sandbox really calls, watched from outside by perf events: `claw sandbox learn`. No part
of the service.
"""

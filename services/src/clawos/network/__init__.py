"""The way from a sandbox to the egress service, and to nothing else: veth pairs, firewall, XDP hook."""

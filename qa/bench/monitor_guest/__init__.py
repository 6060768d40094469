"""The monitor's cost, measured in the guest: its programs attached and taken off again, turn by turn."""

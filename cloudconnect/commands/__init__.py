"""Layer 3: bounded AMP and the commands of the control channel, the tunnel, the LAN and the admin."""

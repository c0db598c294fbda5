"""Layer 3: bounded AMP, and the commands of control channel, tunnel, LAN and admin socket."""

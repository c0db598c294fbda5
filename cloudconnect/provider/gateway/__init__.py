"""Layer 4: the gateway: the public port, and the bytes that it passes on without any key."""

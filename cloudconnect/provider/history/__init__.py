"""What happened at a provider: for how long it is known, and what is kept of it for good."""

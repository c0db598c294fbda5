"""What every target role does with a session: its keys, its machine, its tunnels and streams."""

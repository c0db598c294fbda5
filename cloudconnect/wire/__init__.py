"""Layer 1: the bytes on the wire, without Twisted, without I/O and without a clock."""

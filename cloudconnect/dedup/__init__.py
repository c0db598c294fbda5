"""Layer 1: the accelerators' codec: what the far end has seen is not sent again; pure."""

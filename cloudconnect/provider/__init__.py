"""Layer 4: the provider's roles: Cloud Connect service, gateway and target data mover."""

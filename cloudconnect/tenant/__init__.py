"""Layer 4: the tenant's roles: job manager and source data mover."""

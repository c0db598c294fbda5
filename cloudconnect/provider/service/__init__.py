"""Layer 4: the Cloud Connect service: tenants, and their sessions from Start to end."""

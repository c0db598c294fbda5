"""Layer 4: the service's end of a tenant's control channel: logging in, and what is asked then."""

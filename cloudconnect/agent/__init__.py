"""Layer 5: a tenant's agent: runs backups on a schedule, and makes up for those that it missed."""

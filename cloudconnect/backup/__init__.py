"""Layer 3: the source at the tenant: walking, uploading, restoring; synchronous, no Twisted."""

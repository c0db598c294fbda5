"""Layer 5: settings that people write: the provider's configuration and the tenant's profiles."""

"""Layer 4: what a provider's admin does and is shown."""

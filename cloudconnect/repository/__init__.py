"""Layer 3: the store at the provider: packs, index, restore points; synchronous, no Twisted."""

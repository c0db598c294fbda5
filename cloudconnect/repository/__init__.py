"""Layer 3: the store at the provider: packs, index, restore points; synchronous, without Twisted."""

"""Layer 3: the accelerator's block cache on disk: bounded, per tenant, encrypted; no Twisted."""

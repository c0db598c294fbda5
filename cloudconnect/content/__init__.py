"""Layer 1: what is inside: chunks, compression, sealing at rest and manifests; pure."""

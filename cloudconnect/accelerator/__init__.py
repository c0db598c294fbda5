"""Layer 4: the WAN accelerators, which send over a slow line only what its far end has not seen."""

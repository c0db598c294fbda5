"""Layer 4: what somebody is told at once, because it happened or because it did not."""

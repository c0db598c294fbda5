"""Layer 6: what ``twist`` and ``twistd`` start."""

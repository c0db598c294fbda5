"""Layer 2: composable wrappers over any stream transport."""

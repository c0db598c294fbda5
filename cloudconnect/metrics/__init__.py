"""Layer 5: what a process tells Prometheus, and whether it is healthy and ready."""

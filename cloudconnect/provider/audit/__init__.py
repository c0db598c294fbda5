"""Layer 4: the audit log, whose lines are one chain."""

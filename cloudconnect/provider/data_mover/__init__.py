"""Layer 4: the target data mover: what is stored, kept, collected and removed on its disks."""

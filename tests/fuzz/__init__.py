"""Fuzzing of every parser that a peer, a store or a file of settings can reach."""

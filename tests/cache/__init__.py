"""Tests of the block cache on disk."""

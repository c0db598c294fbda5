"""Tests of the accelerators' codec."""

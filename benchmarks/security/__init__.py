"""Measurements of what the provider bears, and scans of it by other people's tools."""

"""Tests of :mod:`cloudconnect.accelerator`."""

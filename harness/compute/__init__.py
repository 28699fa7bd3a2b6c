"""Devices, processes, and how XLA compiles for them."""

"""Policies outside this project: exported programs, and the server in front of them; needs JAX and NumPy alone."""

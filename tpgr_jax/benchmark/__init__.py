"""What `python -m tpgr_jax.bench` measures: a module per kind of measurement."""

"""What `python -m hrlmg_jax.bench` measures: a module per kind of measurement."""

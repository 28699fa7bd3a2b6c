"""The world: data in, users that react, metrics out. Knows what a policy looks like, knows no particular one."""

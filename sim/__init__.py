"""The world: data, simulated users and evaluation. It knows the policy protocol, but no particular policy."""

"""The HRL-MG system (two-level actor-critic for clicks and orders); not part of this release yet."""

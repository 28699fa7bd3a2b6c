"""The balanced clustering tree over the items."""

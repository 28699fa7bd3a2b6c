"""From a proto-action to an item: exact, approximate and hashed search."""

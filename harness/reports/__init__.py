"""From run folders to tables, curves and pictures."""

"""Checked tables of ratings and events, and their splits."""

"""Rows of what the routers measured and decided."""

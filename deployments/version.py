"""Slipway's own version, for pages and for what is written into images."""

VERSION = "0.1.0"

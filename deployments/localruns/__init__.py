"""Runs of a deployment on this machine, before it is one: once, in the foreground of a page."""

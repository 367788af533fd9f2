"""Autoscalers against each other on the same requests; the command is `bench/autoscaler`."""

"""The router's own size against its load; see `bench/selfscale`."""

"""A cluster of a thousand services whose pods are objects alone; see `bench/scale`."""

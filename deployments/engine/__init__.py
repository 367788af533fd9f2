"""A Docker Engine over its HTTP API: the only package that imports `docker`. No Django in here."""

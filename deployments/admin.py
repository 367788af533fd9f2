"""Admin of `deployments`, gathered for Django from the rooms."""

from importlib import import_module
from importlib.util import find_spec

for _room in ("audit", "clusters", "environments", "images", "registry", "services"):
    if find_spec(f"deployments.{_room}.admin"):
        import_module(f"deployments.{_room}.admin")

"""Where a cluster's models may go, as fields of a pod's spec.

PURE.
"""

from typing import Any

from deployments.types import KubeSettings


def where(settings: KubeSettings) -> dict[str, Any]:
    """`nodeSelector` and `tolerations` of the cluster's SKU; neither where it has none."""
    found: dict[str, Any] = {}
    if settings.node_selector:
        found["nodeSelector"] = dict(sorted(settings.node_selector.items()))
    if settings.tolerations:
        found["tolerations"] = [
            {
                "key": item.key,
                **(
                    {"operator": "Equal", "value": item.value}
                    if item.value
                    else {"operator": "Exists"}
                ),
                **({"effect": item.effect} if item.effect else {}),
            }
            for item in settings.tolerations
        ]
    return found

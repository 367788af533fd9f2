"""News that travels upwards: the portal listens, nothing here knows who does.

A message says only that something changed; whoever cares reads the truth again.
"""

from django.db import transaction
from django.dispatch import Signal

# kwargs: topic ("service", "deployment", "environment", "cluster", "model"), key (its name or id)
changed = Signal()


def announce(topic: str, key: str | int) -> None:
    """Send `changed` once the present transaction is committed (at once where there is none)."""
    transaction.on_commit(
        lambda: changed.send_robust(sender=None, topic=topic, key=str(key)), robust=True
    )

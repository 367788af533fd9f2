"""The only module that sends on the channel layer.

A message says that something changed; the page reads the truth again from its own URL. It may be lost
(the layer is best effort), so pages also read again after every reconnect. Messages are sent at once,
by whichever process made the change: a job's process may end right after. Bundling what comes thick and
fast is the consumer's part, because it lives on.

Never raises into the code that announced and never holds it longer than `DEADLINE`: a layer that is down
costs liveness, not the change itself.
"""

import asyncio
import hashlib
import logging
import time
from typing import Any, Literal, TypedDict

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import transaction
from django.db.models.signals import post_delete, post_save

from deployments.signals import changed

logger = logging.getLogger(__name__)

DEADLINE = 2.0  # seconds
COMPLAIN_EVERY = 60.0  # seconds
TOPICS = frozenset(
    {
        "attachment",
        "detachment",
        "service",
        "deployment",
        "environment",
        "cluster",
        "local",
        "model",
        "requests",
        "telemetry",
        "whatif",
    }
)


class Changed(TypedDict):
    """Something under `topic` (such as `service:diabetes`) is different now."""

    type: Literal["live.changed"]
    topic: str


class Person(TypedDict):
    """A person's right to listen may be different now: consumers of theirs look again."""

    type: Literal["live.person"]


def is_topic(text: object) -> bool:
    """Whether a client may subscribe to this: a known prefix and a key, or `*` for all of the kind."""
    if not isinstance(text, str) or len(text) > 300 or not text.isprintable():
        return False
    prefix, _, key = text.partition(":")
    return prefix in TOPICS and bool(key)


def topic_group(topic: str) -> str:
    """The layer's group of a topic. Group names are short ASCII, which a topic need not be."""
    return f"live.{hashlib.sha256(topic.encode()).hexdigest()[:32]}"


def person_group(pk: int) -> str:
    return f"person.{pk}"


def _send(*messages: tuple[str, Changed | Person]) -> None:
    """Send each message to its group, all within one deadline."""
    layer = get_channel_layer()
    if layer is None:
        return

    async def send() -> None:
        async with asyncio.timeout(DEADLINE):
            for group, message in messages:
                await layer.group_send(group, message)

    try:
        async_to_sync(send)()
    except Exception as error:  # noqa: BLE001  whatever the layer raises, the change itself stands
        _complain(error)


_complained_at = float("-inf")


def _complain(error: Exception) -> None:
    """One line a minute: a layer that is down is down for every message."""
    global _complained_at
    if time.monotonic() - _complained_at >= COMPLAIN_EVERY:
        _complained_at = time.monotonic()
        logger.warning("live: not sent, pages will poll: %s", error or "no answer in time")


def _on_changed(*, topic: str, key: str, **kwargs: Any) -> None:
    name = f"{topic}:{key}"
    if is_topic(name):
        # Lists listen to all of a kind, so that they hear of what is new too.
        heard_as = (name, f"{topic}:*")
        _send(*((topic_group(each), Changed(type="live.changed", topic=each)) for each in heard_as))
    else:
        logger.error("live: no such topic: %s", name)


def _on_person(*, instance: Any, **kwargs: Any) -> None:
    group = person_group(instance.pk)
    transaction.on_commit(lambda: _send((group, Person(type="live.person"))), robust=True)


def signed_out(pk: int) -> None:
    """A session of this person has ended. Called after the session's row is gone."""
    _send((person_group(pk), Person(type="live.person")))


def connect() -> None:
    """Listen to the signals of the rooms below and of people. Called once, when apps are ready."""
    from portal.models import User

    changed.connect(_on_changed, dispatch_uid="portal.live.changed")
    post_save.connect(_on_person, sender=User, dispatch_uid="portal.live.person-saved")
    post_delete.connect(_on_person, sender=User, dispatch_uid="portal.live.person-deleted")

"""Websocket consumers: they check who asks and forward; no business rules.

`/ws/live/` tells a page which of its topics changed. The client sends
`{"type": "subscribe", "topics": ["service:diabetes", ...]}` with all it wants, again whenever that
changes, and gets `subscribed` (what it listens to now), `refused` (a topic that does not exist) and
`changed`. Who listens is checked at the start and before each message; 4401 is "sign in", 4400 is
"not understood".
"""

import asyncio
import json
from contextlib import suppress
from typing import Any

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.urls import path

from portal import live
from portal.access import session_allows
from portal.models import Role

QUIET = 0.25  # seconds between two messages of one topic to one page
MOST_TOPICS = 200
LONGEST_MESSAGE = 65_536  # characters
NOT_UNDERSTOOD, NOT_SIGNED_IN = 4400, 4401


class LiveConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels has no types
    """One page's live connection."""

    async def connect(self) -> None:
        self.topics: set[str] = set()
        self.subscribed_before = False
        self.waiting: dict[str, asyncio.TimerHandle] = {}  # topic -> end of its quiet time
        self.again: set[str] = set()  # topics with news during their quiet time
        self.tasks: set[asyncio.Task[None]] = set()
        self.person: str | None = None
        # Accepted first, even to say no: a refused handshake would look like a network fault to the page.
        await self.accept()
        if not await self.allowed():
            await self.close(code=NOT_SIGNED_IN)
            return
        self.person = live.person_group(self.scope["user"].pk)
        await self.channel_layer.group_add(self.person, self.channel_name)

    async def disconnect(self, code: int) -> None:
        for timer in self.waiting.values():
            timer.cancel()
        self.waiting.clear()
        for topic in self.topics:
            await self.channel_layer.group_discard(live.topic_group(topic), self.channel_name)
        if self.person:
            await self.channel_layer.group_discard(self.person, self.channel_name)

    async def allowed(self) -> bool:
        """Read anew each time: roles and sessions end while a socket stands."""
        key = self.scope["session"].session_key
        return await database_sync_to_async(session_allows)(key, Role.VIEWER)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if not await self.allowed():
            await self.close(code=NOT_SIGNED_IN)
            return
        topics = _asked_for(text_data)
        if topics is None:
            await self.close(code=NOT_UNDERSTOOD)
            return
        for topic in topics:
            if not live.is_topic(topic):
                await self.say({"type": "refused", "topic": topic, "reason": "no such topic"})
        wanted = {topic for topic in topics if live.is_topic(topic)}
        for topic in self.topics - wanted:
            await self.channel_layer.group_discard(live.topic_group(topic), self.channel_name)
        for topic in wanted - self.topics:
            await self.channel_layer.group_add(live.topic_group(topic), self.channel_name)
        self.topics = wanted
        first, self.subscribed_before = not self.subscribed_before, True
        await self.say({"type": "subscribed", "topics": sorted(wanted), "first": first})

    async def live_changed(self, event: live.Changed) -> None:
        """News: the first at once, what follows within the quiet time bundled into one."""
        topic = event["topic"]
        if topic in self.waiting:
            self.again.add(topic)
            return
        loop = asyncio.get_running_loop()
        self.waiting[topic] = loop.call_later(QUIET, self.quiet_over, topic)
        await self.tell(topic)

    def quiet_over(self, topic: str) -> None:
        self.waiting.pop(topic, None)
        if topic in self.again:
            self.again.discard(topic)
            loop = asyncio.get_running_loop()
            self.waiting[topic] = loop.call_later(QUIET, self.quiet_over, topic)
            task = loop.create_task(self.tell(topic))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def tell(self, topic: str) -> None:
        if topic not in self.topics:
            return
        if await self.allowed():
            await self.say({"type": "changed", "topic": topic})
        else:
            await self.close(code=NOT_SIGNED_IN)

    async def live_person(self, event: live.Person) -> None:
        if not await self.allowed():
            await self.close(code=NOT_SIGNED_IN)

    async def say(self, message: dict[str, Any]) -> None:
        with suppress(OSError):  # the page has gone; `disconnect` follows
            await self.send(text_data=json.dumps(message))


def _asked_for(text: str | None) -> list[Any] | None:
    """The topics of a subscribe message; None when it is not one."""
    if text is None or len(text) > LONGEST_MESSAGE:
        return None
    try:
        message = json.loads(text)
    except ValueError:
        return None
    if not isinstance(message, dict) or message.get("type") != "subscribe":
        return None
    topics = message.get("topics")
    return topics if isinstance(topics, list) and len(topics) <= MOST_TOPICS else None


websocket_urlpatterns: list[Any] = [path("ws/live/", LiveConsumer.as_asgi())]

"""Log lines over a websocket: history first, then live, with neither a gap nor a repeat.

`/ws/logs/<source>/?cursor=` sends

    {"type": "lines", "lines": [[at, source, stream, text], ...], "cursor": "..."}   a page, in order
    {"type": "live"}                      history is over; what follows happens now
    {"type": "trouble", "reason": "..."}  the cluster cannot be read; it goes on trying
    {"type": "gone", "reason": "..."}     there is no such log (any more); then it closes
    {"type": "ended"}                     all of it was sent and no more can come; then it closes

and takes {"type": "more"} for each page it has taken in: with WINDOW pages on their way it waits, so a
slow page is never flooded. The files and the cluster are the truth, read each POLL seconds; an
announcement only makes that sooner. Who listens is checked at the start, when the person changes and
each RECHECK seconds. Nothing blocks the event loop: all reading is done in threads.
"""

import asyncio
import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.urls import path

from deployments.errors import NotFound, PermanentError, TemporaryError
from portal import live
from portal.access import session_person
from portal.consumers import NOT_SIGNED_IN, NOT_UNDERSTOOD
from portal.local_runs import may_read_log
from portal.log_sources import Page, read_page, topics

logger = logging.getLogger(__name__)

POLL = 0.7  # seconds between two looks at the end of a log
HINT_PAUSE = 0.1  # seconds between two looks however many announcements there are
TROUBLE_PAUSE = 3.0  # seconds before a cluster that could not be read is tried again
RECHECK = 5.0  # seconds
WINDOW = 4  # pages sent and not yet taken in
ALL_SENT, NOT_FOUND, FAULT = 1000, 4404, 1011


class LogConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """One viewer of one log."""

    async def connect(self) -> None:
        self.source: str = self.scope["url_route"]["kwargs"]["source"]
        query = parse_qs(self.scope["query_string"].decode("ascii", "replace"))
        self.cursor = query.get("cursor", [""])[0]
        self.groups_joined: list[str] = []
        self.on_the_way = 0
        self.room = asyncio.Event()
        self.news = asyncio.Event()
        self.checked_at = 0.0
        self.task: asyncio.Task[None] | None = None
        # accepted first, even to say no: a refused handshake looks like a network fault to the page
        await self.accept()
        if not await self.still_allowed():
            return
        groups = [live.person_group(self.scope["user"].pk)]
        groups += [live.topic_group(topic) for topic in topics(self.source)]
        for group in groups:
            await self.channel_layer.group_add(group, self.channel_name)
            self.groups_joined.append(group)
        self.task = asyncio.create_task(self.guarded_stream())

    async def disconnect(self, code: int) -> None:
        if self.task is not None:
            self.task.cancel()
        for group in self.groups_joined:
            await self.channel_layer.group_discard(group, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data != '{"type":"more"}':
            await self.close(code=NOT_UNDERSTOOD)
            return
        self.on_the_way = max(0, self.on_the_way - 1)
        self.room.set()

    async def live_changed(self, event: live.Changed) -> None:
        self.news.set()

    async def live_person(self, event: live.Person) -> None:
        self.checked_at = 0.0
        await self.still_allowed()

    async def still_allowed(self) -> bool:
        """Closes the socket when this person may not look (any more)."""
        if time.monotonic() - self.checked_at < RECHECK:
            return True
        key = self.scope["session"].session_key
        if not await _in_thread(_may_follow, key, self.source):
            await self.close(code=NOT_SIGNED_IN)
            return False
        self.checked_at = time.monotonic()
        return True

    async def guarded_stream(self) -> None:
        try:
            await self.stream()
        except Exception:  # the page reconnects, and the reason is in our own log
            logger.exception("Streaming the log %s ended", self.source)
            await self.close(FAULT)

    async def stream(self) -> None:
        """Send what there is, then what comes, until the socket closes or the log is gone."""
        is_live = False
        while await self.still_allowed():
            self.news.clear()
            try:
                page: Page = await _in_thread(read_page, self.source, self.cursor)
            except TemporaryError as error:
                await self.say({"type": "trouble", "reason": error.message})
                is_live = False
                await asyncio.sleep(TROUBLE_PAUSE)
                continue
            except PermanentError as error:
                await self.say({"type": "gone", "reason": error.message})
                await self.close(NOT_FOUND if isinstance(error, NotFound) else NOT_UNDERSTOOD)
                return
            if page.lines:
                await self.send_page(page)
            self.cursor = page.cursor
            if page.ended:
                await self.say({"type": "ended"})
                await self.close(ALL_SENT)
                return
            if page.at_end:
                if not is_live:
                    await self.say({"type": "live"})
                is_live = True
                await self.pause()

    async def send_page(self, page: Page) -> None:
        while self.on_the_way >= WINDOW:
            self.room.clear()
            await self.room.wait()
        if not await self.still_allowed():  # it may have waited for long
            return
        self.on_the_way += 1
        lines = [[line.at, line.source, line.stream, line.text] for line in page.lines]
        await self.say({"type": "lines", "lines": lines, "cursor": page.cursor})

    async def pause(self) -> None:
        """Until the next look: POLL seconds, or less when there is news."""
        await asyncio.sleep(HINT_PAUSE)
        try:
            await asyncio.wait_for(self.news.wait(), POLL - HINT_PAUSE)
        except TimeoutError:
            return

    async def say(self, message: dict[str, Any]) -> None:
        await self.send(text_data=json.dumps(message, ensure_ascii=False))


def _may_follow(session_key: str | None, source: str) -> bool:
    return may_read_log(session_person(session_key), source)


@cache
def _threads() -> ThreadPoolExecutor:
    """Threads of their own: a cluster that answers slowly must not hold up other pages."""
    return ThreadPoolExecutor(max_workers=8, thread_name_prefix="logs")


async def _in_thread(function: Any, *arguments: Any) -> Any:
    call = database_sync_to_async(function, thread_sensitive=False, executor=_threads())
    return await call(*arguments)


websocket_urlpatterns: list[Any] = [path("ws/logs/<str:source>/", LogConsumer.as_asgi())]

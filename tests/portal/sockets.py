"""A websocket client for the real ASGI application, in this process."""

import json
from typing import Any

from asgiref.testing import ApplicationCommunicator
from django.conf import settings
from django.test import Client

from portal.asgi import application
from portal.models import User


def signed_in(person: User) -> Client:
    client = Client()
    client.force_login(person)
    return client


class Socket(ApplicationCommunicator):
    """`channels.testing` would do, if it did not need a server that is not used here."""

    def __init__(
        self, path: str, client: Client | None, origin: str = "http://localhost", query: str = ""
    ) -> None:
        headers = [(b"origin", origin.encode()), (b"host", b"localhost")]
        if client is not None:
            name = settings.SESSION_COOKIE_NAME
            headers.append((b"cookie", f"{name}={client.cookies[name].value}".encode()))
        super().__init__(
            application,
            {"type": "websocket", "path": path, "headers": headers, "query_string": query.encode(),
             "subprotocols": []},
        )  # fmt: skip

    async def open(self) -> bool:
        """Whether the handshake was accepted."""
        await self.send_input({"type": "websocket.connect"})
        return (await self.receive_output(30))["type"] == "websocket.accept"

    async def send_text(self, text: str) -> None:
        await self.send_input({"type": "websocket.receive", "text": text})

    async def message(self) -> Any:
        """The next message, decoded. AssertionError when the socket was closed instead."""
        output = await self.receive_output(30)
        assert output["type"] == "websocket.send", output
        return json.loads(output["text"])

    async def closed_with(self) -> int:
        output = await self.receive_output(30)
        assert output["type"] == "websocket.close", output
        return output["code"]

    async def leave(self) -> None:
        await self.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.wait(30)

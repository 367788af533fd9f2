"""The live socket through the real ASGI application, with people signed in by real sessions."""

import asyncio
import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.test import Client

from deployments.signals import announce
from portal.consumers import MOST_TOPICS, NOT_SIGNED_IN, NOT_UNDERSTOOD, LiveConsumer
from portal.models import User
from tests.portal.sockets import Socket, signed_in

pytestmark = pytest.mark.django_db(transaction=True)


async def _open(client: Client | None) -> Socket:
    socket = Socket("/ws/live/", client)
    assert await socket.open()
    return socket


async def _open_for(person: User) -> Socket:
    return await _open(await sync_to_async(signed_in)(person))


async def _subscribe(socket: Socket, *topics: Any) -> None:
    await socket.send_text(json.dumps({"type": "subscribe", "topics": list(topics)}))


async def test_without_a_login_the_socket_is_closed_with_the_reason() -> None:
    socket = await _open(None)
    assert await socket.closed_with() == NOT_SIGNED_IN


async def test_another_sites_page_is_refused(viewer: User) -> None:
    client = await sync_to_async(signed_in)(viewer)
    assert not await Socket("/ws/live/", client, origin="http://evil.example").open()


@pytest.mark.parametrize("role", ["viewer", "deployer", "administrator"])
async def test_each_role_hears_what_it_subscribed_to_and_nothing_else(
    role: str, request: pytest.FixtureRequest
) -> None:
    person = await sync_to_async(request.getfixturevalue)(role)
    socket = await _open_for(person)
    await _subscribe(socket, "service:diabetes")
    assert await socket.message() == {
        "type": "subscribed",
        "topics": ["service:diabetes"],
        "first": True,
    }
    await sync_to_async(announce)("service", "other")
    await sync_to_async(announce)("service", "diabetes")
    assert await socket.message() == {"type": "changed", "topic": "service:diabetes"}
    await socket.leave()


async def test_a_second_subscription_replaces_the_first(viewer: User) -> None:
    socket = await _open_for(viewer)
    await _subscribe(socket, "service:one")
    await socket.message()
    await _subscribe(socket, "model:two")
    assert (await socket.message())["first"] is False
    await sync_to_async(announce)("service", "one")
    await sync_to_async(announce)("model", "two")
    assert (await socket.message())["topic"] == "model:two"
    await socket.leave()


@pytest.mark.parametrize(
    "topic", ["people:1", "service:", "service", "", 7, None, "service:\n", "x" * 301]
)
async def test_a_topic_that_does_not_exist_is_refused_and_the_others_stand(
    topic: object, viewer: User
) -> None:
    socket = await _open_for(viewer)
    await _subscribe(socket, topic, "cluster:local")
    assert (await socket.message())["type"] == "refused"
    assert (await socket.message())["topics"] == ["cluster:local"]
    await socket.leave()


@pytest.mark.parametrize(
    "text",
    ["not json", "[]", '{"type": "delete"}', '{"type": "subscribe"}', '{"type":"subscribe","topics":"a"}',
     json.dumps({"type": "subscribe", "topics": ["service:a"] * (MOST_TOPICS + 1)})],
)  # fmt: skip
async def test_what_is_not_a_subscription_closes_the_socket(text: str, viewer: User) -> None:
    socket = await _open_for(viewer)
    await socket.send_text(text)
    assert await socket.closed_with() == NOT_UNDERSTOOD


async def test_a_deactivated_person_is_closed_at_once(viewer: User) -> None:
    socket = await _open_for(viewer)
    await _subscribe(socket, "service:diabetes")
    await socket.message()
    viewer.is_active = False
    await sync_to_async(viewer.save)()
    assert await socket.closed_with() == NOT_SIGNED_IN


async def test_a_person_deactivated_behind_the_signals_back_hears_no_more(viewer: User) -> None:
    socket = await _open_for(viewer)
    await _subscribe(socket, "service:diabetes")
    await socket.message()
    await sync_to_async(User.objects.filter(pk=viewer.pk).update)(is_active=False)
    await sync_to_async(announce)("service", "diabetes")
    assert await socket.closed_with() == NOT_SIGNED_IN


async def test_signing_out_closes_the_persons_socket(viewer: User) -> None:
    client = await sync_to_async(signed_in)(viewer)
    socket = await _open(client)
    await _subscribe(socket, "service:diabetes")
    await socket.message()
    await sync_to_async(client.post)("/logout/")
    assert await socket.closed_with() == NOT_SIGNED_IN


async def test_signing_out_in_one_browser_leaves_the_other_alone(viewer: User) -> None:
    here, there = await sync_to_async(signed_in)(viewer), await sync_to_async(signed_in)(viewer)
    socket = await _open(there)
    await _subscribe(socket, "service:diabetes")
    await socket.message()
    await sync_to_async(here.post)("/logout/")
    await sync_to_async(announce)("service", "diabetes")
    assert (await socket.message())["type"] == "changed"
    await socket.leave()


async def test_a_burst_of_news_is_two_messages_the_last_one_never_lost(viewer: User) -> None:
    socket = await _open_for(viewer)
    await _subscribe(socket, "deployment:7")
    await socket.message()
    for _ in range(20):
        await sync_to_async(announce)("deployment", 7)
    assert (await socket.message())["topic"] == "deployment:7"
    assert (await socket.message())["topic"] == "deployment:7"
    await asyncio.sleep(0.4)
    assert await socket.receive_nothing(timeout=0.1)
    await socket.leave()


async def test_all_of_a_kind_hears_of_what_is_new(viewer: User) -> None:
    socket = await _open_for(viewer)
    await _subscribe(socket, "service:*")
    await socket.message()
    await sync_to_async(announce)("service", "just-made")
    assert await socket.message() == {"type": "changed", "topic": "service:*"}
    await socket.leave()


async def test_a_page_that_has_just_gone_is_no_error(viewer: User) -> None:
    consumer = LiveConsumer()

    async def gone(message: dict[str, Any]) -> None:
        raise OSError

    consumer.base_send = gone
    await consumer.say({"type": "changed", "topic": "service:diabetes"})

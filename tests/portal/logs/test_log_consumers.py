"""The log socket through the real ASGI application, while somebody writes."""

import asyncio
import json
import threading
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from deployments.drivers.base import LogLine
from deployments.errors import NotFound
from deployments.services.models import Service
from deployments.signals import announce
from portal import log_consumers, log_sources
from portal.consumers import NOT_SIGNED_IN, NOT_UNDERSTOOD
from portal.log_consumers import NOT_FOUND
from portal.models import Role, User
from tests.portal.logs.conftest import FakeDriver, deploy, write
from tests.portal.sockets import Socket, signed_in

pytestmark = pytest.mark.django_db(transaction=True)
MORE = '{"type":"more"}'


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks come sooner than in the product, where nobody waits for them."""
    monkeypatch.setattr(log_consumers, "POLL", 0.1)
    monkeypatch.setattr(log_consumers, "HINT_PAUSE", 0.02)
    monkeypatch.setattr(log_consumers, "TROUBLE_PAUSE", 0.05)


async def _open(person: User | None, source: str, cursor: str = "") -> Socket:
    client = await sync_to_async(signed_in)(person) if person else None
    socket = Socket(f"/ws/logs/{source}/", client, query=f"cursor={cursor}")
    assert await socket.open()
    return socket


async def _lines_until(socket: Socket, last: str) -> tuple[list[str], str]:
    """Texts up to and including `last`, each page acknowledged; and the cursor after them."""
    found: list[str] = []
    cursor = ""
    while last not in found:
        message = await socket.message()
        if message["type"] == "lines":
            found += [line[3] for line in message["lines"]]
            cursor = message["cursor"]
            await socket.send_text(MORE)
    return found, cursor


async def test_history_then_live_exactly_once_while_a_writer_appends(
    viewer: User, service: Service, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_sources, "_FEWEST", 7)
    monkeypatch.setattr(log_sources.read_page, "__defaults__", ("", 10))
    deployment = await sync_to_async(deploy)(service)
    expected = [f"line {number}" for number in range(400)]
    for number in range(100):
        write(deployment, expected[number], at=number)

    def append() -> None:
        for number in range(100, 400):
            if number % 3:
                write(deployment, expected[number], at=number)
            else:
                driver.say(f"replica-{number % 2}", number, expected[number])
            threading.Event().wait(0.002)
        write(deployment, "end", at=1000)

    writer = threading.Thread(target=append)
    writer.start()
    socket = await _open(viewer, "service:diabetes")
    half, cursor = await _lines_until(socket, expected[150])
    await socket.leave()
    # the connection breaks and comes back with its cursor
    socket = await _open(viewer, "service:diabetes", cursor)
    rest, _ = await _lines_until(socket, "end")
    await socket.leave()
    writer.join()
    assert sorted(half + rest) == sorted([*expected, "end"])
    own = [text for text in half + rest if text in expected and int(text.split()[1]) % 3]
    assert own == sorted(own, key=lambda text: int(text.split()[1]))


async def test_the_end_of_history_is_said_once(
    viewer: User, service: Service, driver: FakeDriver
) -> None:
    deployment = await sync_to_async(deploy)(service)
    write(deployment, "one")
    socket = await _open(viewer, f"deployment:{deployment.pk}")
    assert (await socket.message())["lines"] == [[1.0, "pipeline", "", "one"]]
    assert await socket.message() == {"type": "live"}
    write(deployment, "two")
    assert (await socket.message())["lines"][0][3] == "two"
    await socket.leave()


async def test_an_announcement_brings_the_line_before_the_poll(
    viewer: User, service: Service, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_consumers, "POLL", 60)
    deployment = await sync_to_async(deploy)(service)
    socket = await _open(viewer, f"deployment:{deployment.pk}")
    assert await socket.message() == {"type": "live"}
    await asyncio.sleep(0.1)
    write(deployment, "news")
    await sync_to_async(announce)("deployment", deployment.pk)
    assert (await socket.message())["lines"][0][3] == "news"
    await socket.leave()


async def test_a_page_that_takes_nothing_in_is_sent_no_more_than_the_window(
    viewer: User, service: Service, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_sources, "_FEWEST", 1)
    monkeypatch.setattr(log_sources.read_page, "__defaults__", ("", 1))
    deployment = await sync_to_async(deploy)(service)
    write(deployment, *[str(number) for number in range(10)])
    socket = await _open(viewer, f"deployment:{deployment.pk}")
    for number in range(log_consumers.WINDOW):
        assert (await socket.message())["lines"][0][3] == str(number)
    assert await socket.receive_nothing(0.3)
    await socket.send_text(MORE)
    assert (await socket.message())["lines"][0][3] == str(log_consumers.WINDOW)
    assert await socket.receive_nothing(0.2)
    await socket.leave()


async def test_without_a_login_there_is_no_log(service: Service, driver: FakeDriver) -> None:
    socket = await _open(None, "service:diabetes")
    assert await socket.closed_with() == NOT_SIGNED_IN


@pytest.mark.parametrize("role", [Role.VIEWER, Role.DEPLOYER, Role.ADMINISTRATOR])
async def test_each_role_may_read(
    role: str, service: Service, driver: FakeDriver, request: pytest.FixtureRequest
) -> None:
    person = await sync_to_async(request.getfixturevalue)(role)
    socket = await _open(person, "service:diabetes")
    assert await socket.message() == {"type": "live"}
    await socket.leave()


async def test_a_person_who_is_deactivated_meanwhile_hears_no_more(
    viewer: User, service: Service, driver: FakeDriver
) -> None:
    socket = await _open(viewer, "service:diabetes")
    assert await socket.message() == {"type": "live"}
    viewer.is_active = False
    await sync_to_async(viewer.save)(update_fields=["is_active"])
    assert await socket.closed_with() == NOT_SIGNED_IN


async def test_a_person_whose_session_ends_unannounced_is_noticed_at_the_next_check(
    viewer: User, service: Service, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_consumers, "RECHECK", 0.05)
    socket = await _open(viewer, "service:diabetes")
    assert await socket.message() == {"type": "live"}
    await sync_to_async(User.objects.filter(pk=viewer.pk).update)(is_active=False)
    assert await socket.closed_with() == NOT_SIGNED_IN


async def test_what_does_not_exist_is_said_and_closed(viewer: User) -> None:
    socket = await _open(viewer, "service:nobody")
    message: dict[str, Any] = await socket.message()
    assert message["type"] == "gone"
    assert "no service named nobody" in message["reason"]
    assert await socket.closed_with() == NOT_FOUND


async def test_a_cluster_that_does_not_answer_is_said_and_tried_again(
    viewer: User, service: Service, driver: FakeDriver
) -> None:
    driver.down = True
    socket = await _open(viewer, "service:diabetes")
    message = await socket.message()
    assert message["type"] == "trouble"
    assert "does not answer" in message["reason"]
    driver.down = False
    while message["type"] == "trouble":
        message = await socket.message()
    assert message == {"type": "live"}
    await socket.leave()


async def test_what_is_not_understood_ends_the_socket(
    viewer: User, service: Service, driver: FakeDriver
) -> None:
    socket = await _open(viewer, "service:diabetes", cursor="%25")
    assert (await socket.message())["type"] == "gone"
    assert await socket.closed_with() == NOT_UNDERSTOOD
    socket = await _open(viewer, "service:diabetes")
    await socket.send_text(json.dumps({"type": "all"}))
    while (output := await socket.receive_output(3))["type"] == "websocket.send":
        pass
    assert output["code"] == NOT_UNDERSTOOD


def test_a_lost_replica_is_no_reason_to_stop(service: Service, driver: FakeDriver) -> None:
    driver.lines["ghost"] = []
    original = driver.logs

    def gone(replica: str, **kwargs: Any) -> Any:
        if replica == "ghost":
            raise NotFound("its output was cleaned up")
        return original(replica, **kwargs)

    driver.logs = gone  # type: ignore[method-assign]
    driver.say("a", 1, "one")
    assert [line.text for line in log_sources.read_page("service:diabetes").lines] == ["one"]


async def test_a_log_that_can_grow_no_more_is_sent_said_to_be_all_and_closed(
    viewer: User, service: Service, driver: FakeDriver
) -> None:
    driver.before["a"] = [LogLine(1.0, "a", "stderr", "died")]
    socket = await _open(viewer, "previous:diabetes:a")
    lines = await socket.message()
    assert [line[3] for line in lines["lines"]] == ["died"]
    assert (await socket.message())["type"] == "ended"
    assert await socket.closed_with() == 1000

"""What HAProxy is told of tokens, in which order, and what is read again when something failed."""

import pytest

from deployments.errors import SlipwayError, Unavailable
from deployments.types import AuthSpec, RouterSpec, ServiceSpec
from router.token_maps import TokenMaps
from tests.router.fakes import service

A = "A" * 64


class FakeSocket:
    """HAProxy's runtime socket with two maps; `heard` keeps every command in order."""

    def __init__(self) -> None:
        self.maps: dict[str, dict[str, str]] = {"revoked.map": {}, "tokens.map": {}}
        self.heard: list[str] = []
        self.broken = ""

    async def ask(self, commands: list[str]) -> list[str]:
        answers = []
        for command in commands:
            if self.broken and self.broken in command:
                raise Unavailable("HAProxy does not answer.")
            self.heard.append(command)
            what, _, name, *rest = command.split(" ")
            if what == "show":
                rows = self.maps[name].items()
                answers.append("".join(f"0x1 {key} {value}\n" for key, value in rows))
                continue
            if what == "add":
                self.maps[name][rest[0]] = rest[1]
            else:
                self.maps[name].pop(rest[0], None)
            answers.append("\n")
        return answers

    async def tell(self, commands: list[str]) -> None:
        await self.ask(list(commands))


class FakeHAProxy:
    def __init__(self) -> None:
        self.runtime = FakeSocket()


class World:
    def __init__(self) -> None:
        self.now = 1000.0
        self.haproxy = FakeHAProxy()
        self.maps = TokenMaps(self.haproxy, lambda: self.now, lambda: 1_000_000 + self.now)
        self.old: list[str] = []
        self.services: list[ServiceSpec] = [service("demo", auth=AuthSpec(token_enabled=True))]

    def want(self, *revoked: str) -> None:
        self.maps.want(RouterSpec(revoked_tokens=revoked), self.services)

    async def follow(self) -> list[str]:
        self.haproxy.runtime.heard.clear()
        await self.maps.follow(self.tell_old)
        return list(self.haproxy.runtime.heard)

    async def tell_old(self, commands: list[str]) -> None:
        self.old += commands

    def verified(self, jti: str, digest: str = A, lives: float = 60.0) -> None:
        expires = int(1_000_000 + self.now + lives)
        key = f"{digest}:demo"
        self.haproxy.runtime.maps["tokens.map"][key] = f"{expires}:{jti}:token:dan"


@pytest.fixture
def world() -> World:
    made = World()
    made.want()
    made.maps.started()
    return made


async def test_nothing_is_said_while_nothing_changes(world: World) -> None:
    assert await world.follow() == []


async def test_a_revoked_token_is_named_first_and_forgotten_then(world: World) -> None:
    world.verified("bad")
    world.want("bad")
    assert await world.follow() == [
        "add map revoked.map bad revoked",
        "show map tokens.map",
        f"del map tokens.map {A}:demo",
    ]
    assert world.old == ["add map revoked.map bad revoked", "clear map tokens.map"]
    assert await world.follow() == []


async def test_expired_entries_go_at_most_once_a_minute(world: World) -> None:
    world.verified("late", lives=5)
    world.now += 59.9
    assert await world.follow() == []
    world.now += 0.1
    assert await world.follow() == ["show map tokens.map", f"del map tokens.map {A}:demo"]
    world.now += 59.9
    assert await world.follow() == []


async def test_what_failed_half_way_is_read_again_and_finished(world: World) -> None:
    world.verified("bad")
    world.want("bad")
    world.haproxy.runtime.broken = "show map tokens.map"
    with pytest.raises(Unavailable):
        await world.follow()
    world.haproxy.runtime.broken = ""
    heard = await world.follow()
    assert heard == [
        "show map revoked.map",
        "show map tokens.map",
        f"del map tokens.map {A}:demo",
    ]
    assert await world.follow() == []


async def test_a_haproxy_that_was_found_is_asked_what_it_knows(world: World) -> None:
    world.haproxy.runtime.maps["revoked.map"] = {"old": "revoked", "bad": "revoked"}
    world.verified("bad")
    world.maps.found()
    world.want("bad", "new")
    assert await world.follow() == [
        "show map revoked.map",
        "add map revoked.map new revoked",
        "show map tokens.map",
        f"del map tokens.map {A}:demo",
        "del map revoked.map old",
    ]


async def test_tokens_of_a_service_that_takes_none_any_more_are_forgotten(world: World) -> None:
    world.verified("good")
    world.services = [service("demo", auth=AuthSpec())]
    world.want()
    assert f"del map tokens.map {A}:demo" in await world.follow()


async def test_an_answer_that_makes_no_sense_is_no_empty_map(world: World) -> None:
    async def nonsense(commands: list[str]) -> list[str]:
        return ["Unknown map identifier."] * len(commands)

    world.haproxy.runtime.ask = nonsense
    world.maps.found()
    with pytest.raises(SlipwayError):
        await world.follow()

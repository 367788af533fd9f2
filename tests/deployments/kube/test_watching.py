"""A watch goes on through everything: too old a version is listed anew, nothing unseen is taken for gone."""

import time
from collections.abc import Iterator

import pytest

from deployments.errors import PermanentError, Unavailable
from deployments.kube.api import Event, Expired, Listing
from deployments.kube.watching import Watched


def thing(uid: str, version: str) -> dict:
    return {"metadata": {"uid": uid, "resourceVersion": version}}


class Server:
    """Plays lists and watches in turn, and then is silent."""

    def __init__(self, *turns: object) -> None:
        self.turns = list(turns)
        self.asked: list[str] = []

    def items(self, path: str, *, keep, **_: str) -> Listing:
        self.asked.append("list")
        turn = self.turns.pop(0)
        if isinstance(turn, Exception):
            raise turn
        assert isinstance(turn, Listing)
        return Listing([kept for item in turn.items if (kept := keep(item))], turn.version)

    def watch(self, path: str, version: str, seconds: float, **_: object) -> Iterator[Event]:
        self.asked.append(f"watch {version}")
        if not self.turns:
            time.sleep(0.05)
            return
        for event in self.turns.pop(0):
            if isinstance(event, Exception):
                raise event
            yield event


def until(look) -> None:
    end = time.monotonic() + 5
    while not look():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_it_lists_anew_when_its_version_is_too_old() -> None:
    server = Server(
        Listing([thing("a", "1")], "5"),
        [Event("MODIFIED", thing("a", "6")), Event("BOOKMARK", thing("", "9"))],
        [Expired("too old")],
        Listing([thing("b", "11")], "12"),
    )
    watched = Watched(server, "/things")
    until(lambda: set(watched.objects()) == {"b"})
    assert server.asked[:5] == ["list", "watch 5", "watch 9", "list", "watch 12"]
    watched.close()


def test_it_goes_on_where_a_watch_broke_off() -> None:
    server = Server(
        Listing([thing("a", "1")], "5"),
        [Event("ADDED", thing("b", "6")), Unavailable("gone")],
        [Event("DELETED", thing("a", "7"))],
    )
    watched = Watched(server, "/things")
    until(lambda: set(watched.objects()) == {"b"})
    assert server.asked[:3] == ["list", "watch 5", "watch 6"]
    watched.close()


def test_a_refusal_is_told_as_it_is() -> None:
    watched = Watched(Server(*[PermanentError("not allowed")] * 50), "/things")
    with pytest.raises(PermanentError, match="not allowed"):
        watched.objects()
    watched.close()


def test_what_was_seen_too_long_ago_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(Server(Listing([thing("a", "1")], "5")), "/things")
    assert set(watched.objects()) == {"a"}
    watched.close()
    monkeypatch.setattr("deployments.kube.watching._STALE", -1.0)
    with pytest.raises(Unavailable):
        watched.objects()


def test_only_what_is_kept_is_held() -> None:
    watched = Watched(
        Server(Listing([thing("a", "1"), thing("b", "2")], "5")),
        "/things",
        keep=lambda found: {"n": 1} if found["metadata"]["uid"] == "a" else None,
    )
    assert watched.objects() == {"a": {"n": 1}}
    watched.close()

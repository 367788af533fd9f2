"""What is free is added up anew when something changed, and no more than once a second."""

import pytest

from deployments.drivers import kubernetes_roomwatch
from deployments.drivers.kubernetes_roomwatch import RoomWatch
from deployments.errors import Unavailable
from deployments.types import KubeSettings

NODE = {"name": "a", "labels": {}, "taints": [], "room": {"cpu": 4.0, "pods": 110.0}, "open": True}


class Seen:
    """Plays a watch: another mapping once something changed."""

    made: dict[str, "Seen"]

    def __init__(self, kube: object, path: str, **_: object) -> None:
        self.shown: dict[str, dict] = {"n": NODE} if path.endswith("nodes") else {}
        self.away = False
        Seen.made[path] = self

    def objects(self) -> dict[str, dict]:
        if self.away:
            raise Unavailable("not seen")
        return self.shown


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> RoomWatch:
    Seen.made = {}
    monkeypatch.setattr(kubernetes_roomwatch, "Watched", Seen)
    monkeypatch.setattr(RoomWatch, "now", 0.0, raising=False)
    return RoomWatch(None, KubeSettings("models"), lambda: RoomWatch.now)


def takes(cpu: float) -> None:
    Seen.made["/api/v1/pods"].shown = {"p": {"node": "a", "asked": {"cpu": cpu}}}


def test_a_change_is_told_a_second_later_at_the_latest(room: RoomWatch) -> None:
    assert room.capacity()[0].cpu_free == 4.0
    takes(1.0)
    RoomWatch.now = 0.99
    assert room.capacity()[0].cpu_free == 4.0
    RoomWatch.now = 1.0
    assert room.capacity()[0].cpu_free == 3.0


def test_nothing_is_added_up_while_nothing_changes(room: RoomWatch) -> None:
    first = room.capacity()
    RoomWatch.now = 60.0
    assert room.capacity() is first


def test_what_is_not_seen_is_not_told_from_memory(room: RoomWatch) -> None:
    room.capacity()
    Seen.made["/api/v1/pods"].away = True
    with pytest.raises(Unavailable):
        room.capacity()

"""Files for an Engine elsewhere: what is sent, what it is called, when it is sent again, when it goes."""

import io
import json
import tarfile
from dataclasses import replace

import pytest

from deployments.agent import command, container_far
from deployments.agent.container_far import FILLS, Far, content_key
from deployments.engine.containers import Asked, End
from deployments.errors import Conflict, TemporaryError
from deployments.types import ModelSpec, Resources
from tests.deployments.agent.conftest import a_revision


class Engine:
    """Keeps what it is given, as an Engine does; `spoils` is what happens to a file on the way."""

    def __init__(self) -> None:
        self.there: dict[str, dict[str, bytes]] = {}
        self.asked: list[Asked] = []
        self.removed: list[str] = []
        self.sent, self.spoils, self.used = 0, False, False

    def left_over(self, label, value) -> list[str]:
        assert (label, value) == (FILLS, "0123456789")
        return [] if self.asked else ["of a killed agent"]

    def create_volume(self, name, labels) -> None:
        self.there.setdefault(name, {})

    def volumes(self, cluster) -> list[str]:
        return sorted(self.there)

    def create(self, asked) -> str:
        self.asked.append(asked)
        return next(iter(asked.volumes))

    def remove(self, container) -> None:
        self.removed.append(container)

    def remove_volume(self, name) -> None:
        if self.used:
            raise Conflict("in use")
        del self.there[name]

    def read(self, container, path):
        return self.there[container].get(path.removeprefix("/fill/"))

    def fill(self, container, folder, archive) -> None:
        self.sent += 1
        with tarfile.open(fileobj=io.BytesIO(b"".join(archive))) as found:
            for member in found.getmembers():
                if member.isfile():
                    self.there[container][member.name] = found.extractfile(member).read()

    def run_made(self, container, *, deadline):
        if self.spoils:
            return End(1, 0.0, False), "score.py did not arrive as it was sent"
        self.there[container][".whole"] = self.asked[-1].entrypoint[-1].encode()
        return End(0, 0.0, False), ""


@pytest.fixture
def folders(tmp_path):
    runtime, staged = tmp_path / "runtime-abc123", tmp_path / "staged"
    (staged / "app" / "empty").mkdir(parents=True)
    (staged / "app" / "score.py").write_bytes(b"def run(data): ...")
    runtime.mkdir()
    (runtime / "inside.py").write_bytes(b"x" * 1000)
    return runtime, staged


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def far(engine) -> Far:
    return Far(engine, "0123456789", {"slipway.cluster": "0123456789"})


def test_both_volumes_are_filled_once_and_hold_what_was_sent(engine, far, folders):
    for _ in range(2):
        far.prepare(a_revision(), "image", *folders)
    assert engine.sent == 2
    runtime, staged = sorted(engine.there, key=lambda name: "-rev-" in name)
    assert engine.there[runtime]["inside.py"] == b"x" * 1000
    assert engine.there[staged]["app/score.py"] == b"def run(data): ..."
    assert list(json.loads(engine.there[staged][".files.json"])) == ["app/score.py"]
    assert engine.removed[0] == "of a killed agent"
    # what only fills is no replica, and no stranger to the agent
    assert all(dict(item.labels) == {FILLS: "0123456789"} for item in engine.asked)


def test_another_agent_finds_them_whole_and_a_half_made_one_is_filled_anew(engine, far, folders):
    far.prepare(a_revision(), "image", *folders)
    Far(engine, "0123456789", {}).prepare(a_revision(), "image", *folders)
    assert engine.sent == 2
    for held in engine.there.values():
        del held[".whole"]
    Far(engine, "0123456789", {}).prepare(a_revision(), "image", *folders)
    assert engine.sent == 4


def test_a_volume_that_somebody_removed_is_made_again(engine, far, folders):
    far.prepare(a_revision(), "image", *folders)
    engine.there.clear()
    far.prepare(a_revision(), "image", *folders)
    assert engine.sent == 4


def test_what_did_not_arrive_whole_is_said_and_not_used(engine, far, folders):
    engine.spoils = True
    with pytest.raises(TemporaryError, match="did not arrive"):
        far.prepare(a_revision(), "image", *folders)
    engine.spoils = False
    far.prepare(a_revision(), "image", *folders)


def test_a_volume_goes_when_no_replica_has_had_it_for_a_while(engine, far, folders, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(container_far.time, "monotonic", lambda: now[0])
    far.prepare(a_revision(), "image", *folders)
    other = replace(a_revision(), models=(ModelSpec("lasso", 3, ()),))
    far.prepare(other, "image", *folders)
    far.tidy(folders[0], [a_revision()])
    now[0] += container_far._UNUSED_SECONDS - 1
    far.tidy(folders[0], [a_revision()])
    assert len(engine.there) == 3
    now[0] += 1
    engine.used = True
    far.tidy(folders[0], [a_revision()])
    assert len(engine.there) == 3
    engine.used = False
    far.tidy(folders[0], [a_revision()])
    assert len(engine.there) == 2
    assert any(name.endswith(content_key(a_revision())) for name in engine.there)


def test_files_are_named_by_content_and_not_by_size_or_number():
    first = a_revision()
    assert content_key(replace(first, number=9, resources=Resources(cpu=3))) == content_key(first)
    assert content_key(replace(first, models=())) != content_key(first)


def test_the_server_asks_for_the_routers_key_and_leaves_holding_back_to_what_stands_before_it():
    told = command.build_far(a_revision(), replica="r", run=1, silence=9.0)
    words = told["command"]
    assert words[words.index("--cert-reqs") + 1] == "2"
    assert words[words.index("--ca-certs") + 1] == "/slipway/told/router.pem"
    assert words[-1].endswith("entry:app")
    assert told["gate"]["refuse"] is False
    assert told["gate"]["tcp"]["listen"] == "0.0.0.0:5001"

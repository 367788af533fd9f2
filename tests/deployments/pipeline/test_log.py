"""A deployment's log and the word of it."""

import threading
import time

from deployments import logstore
from deployments.pipeline.log import Announcer, DeploymentLog
from deployments.signals import changed


def test_the_first_word_is_said_at_once_and_the_last_is_never_lost():
    said: list[float] = []
    spoken = threading.Event()

    def send() -> None:
        said.append(time.monotonic())
        if len(said) == 2:
            spoken.set()

    announcer = Announcer(send, interval=0.05)
    for _ in range(20):
        announcer()
    assert len(said) == 1
    assert spoken.wait(30)
    assert said[1] - said[0] >= 0.045


def test_flushing_says_what_waits_and_nothing_else():
    said: list[int] = []
    announcer = Announcer(lambda: said.append(1), interval=60)
    announcer.flush()
    assert said == []
    announcer()
    announcer()
    announcer.flush()
    announcer.flush()
    assert said == [1, 1]


def test_lines_are_kept_with_their_source_and_readers_told(settings):
    heard = []

    def hear(sender, topic, key, **_):
        heard.append((topic, key))

    changed.connect(hear)
    try:
        log = DeploymentLog(912345)
        log.write("one\ntwo")
        log.write("three", source="build")
        log.flush()
    finally:
        changed.disconnect(hear)
    entries, _ = logstore.read(settings.HOME.deployment_log(912345))
    assert [(e.source, e.text) for e in entries] == [
        ("pipeline", "one"),
        ("pipeline", "two"),
        ("build", "three"),
    ]
    assert heard == [("deployment", "912345")] * 2

"""What is sent when something changes, and what happens when the channel layer is down."""

import asyncio
import logging
from typing import Any

import pytest

from deployments.signals import announce, changed
from portal import live


class _Layer:
    def __init__(self, fault: Exception | None = None, hang: bool = False) -> None:
        self.sent: list[tuple[str, Any]] = []
        self.fault = fault
        self.hang = hang

    async def group_send(self, group: str, message: Any) -> None:
        if self.fault:
            raise self.fault
        if self.hang:
            await asyncio.sleep(60)
        self.sent.append((group, message))


@pytest.mark.django_db(transaction=True)
def test_an_announcement_is_sent_to_its_topic_and_to_whoever_listens_to_all_of_the_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer = _Layer()
    monkeypatch.setattr(live, "get_channel_layer", lambda: layer)
    announce("service", "diabetes")
    assert layer.sent == [
        (live.topic_group(topic), {"type": "live.changed", "topic": topic})
        for topic in ("service:diabetes", "service:*")
    ]


@pytest.mark.parametrize("fault", [_Layer(ConnectionRefusedError("no redis")), _Layer(hang=True)])
def test_a_layer_that_is_down_costs_a_warning_and_little_time(
    fault: _Layer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live, "get_channel_layer", lambda: fault)
    monkeypatch.setattr(live, "DEADLINE", 0.05)
    monkeypatch.setattr(live, "_complained_at", float("-inf"))
    with caplog.at_level(logging.WARNING, "portal.live"):
        changed.send(sender=None, topic="service", key="diabetes")
        changed.send(sender=None, topic="service", key="diabetes")
    assert caplog.text.count("pages will poll") == 1


def test_a_topic_nobody_can_hear_is_an_error_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    changed.send(sender=None, topic="weather", key="fine")
    assert "no such topic" in caplog.text


def test_group_names_fit_the_layer_whatever_the_topic() -> None:
    name = live.topic_group("model:" + "ü" * 250)
    assert name.isascii()
    assert len(name) < 100

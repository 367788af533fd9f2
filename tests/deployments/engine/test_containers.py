"""What an Engine sends, read: its frames, its times, its listing."""

import struct

import pytest

from deployments.engine.containers import _container, _epoch, _frames, _seconds
from deployments.types import EngineSpec


def frame(kind: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", kind, len(data)) + data


def test_frames_are_found_wherever_the_stream_is_cut():
    whole = frame(1, b"one\n") + frame(2, b"two\n") + frame(1, b"")
    for size in (1, 3, 8, 9, len(whole)):
        chunks = [whole[begin : begin + size] for begin in range(0, len(whole), size)]
        assert list(_frames(iter(chunks))) == [(1, b"one\n"), (2, b"two\n"), (1, b"")]


def test_a_frame_that_never_ends_is_not_given_out():
    assert list(_frames(iter([frame(1, b"whole")[:-1]]))) == []


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        ("", 0.0),
        ("0001-01-01T00:00:00Z", 0.0),
        ("1970-01-01T00:00:10Z", 10.0),
        ("1970-01-01T00:00:10.5Z", 10.5),
        ("1970-01-01T00:00:10.123456789Z", 10.123456789),
        ("1970-01-01T01:00:10.25+01:00", 10.25),
    ],
)
def test_the_engines_time_is_seconds(stamp, seconds):
    assert _epoch(stamp) == pytest.approx(seconds)


def test_it_is_asked_in_nanoseconds():
    assert _seconds("1970-01-01T00:00:10.000000001Z") == "10.000000001"
    assert _seconds("1970-01-01T00:00:10Z") == "10.000000000"


def test_a_row_of_the_listing_is_a_container():
    found = _container(
        {
            "Id": "abc",
            "Names": ["/slipway-x"],
            "State": "exited",
            "Labels": {"slipway.replica": "x-r1-aaaaa", "slipway.run": "3"},
            "Created": 5,
            "NetworkSettings": {"Networks": {"n": {"IPAddress": "172.18.0.2"}}},
            "Ports": [{"PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}, {"PrivatePort": 81}],
        }
    )
    assert (found.name, found.replica, found.run, found.running) == (
        "slipway-x",
        "x-r1-aaaaa",
        3,
        False,
    )
    assert (found.ip, found.ports) == ("172.18.0.2", {80: 8080})


def test_a_stranger_with_our_mark_has_no_run():
    found = _container(
        {"Id": "a", "State": "running", "Labels": {"slipway.run": "x"}, "Created": 1}
    )
    assert (found.run, found.replica, found.running) == (0, "", True)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("unix:///var/run/docker.sock", True),
        ("tcp://127.0.0.1:2376", True),
        ("tcp://[::1]:2376", True),
        ("tcp://localhost:2376", True),
        ("tcp://10.0.0.5:2376", False),
        ("tcp://engine.example.com:2376", False),
    ],
)
def test_an_engine_of_this_machine_is_known_by_its_address(url, local):
    assert EngineSpec(url).local is local

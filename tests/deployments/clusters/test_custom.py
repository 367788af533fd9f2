"""Which lines of an administrator's own are refused before HAProxy is asked. Pure."""

import pytest

from deployments.clusters import custom
from deployments.clusters.custom import LONGEST_LINE, MOST_LINES, Remark
from deployments.types import CustomLines


def refused(area: str, *lines: str) -> list[int]:
    found = custom.problems(CustomLines(**{area: lines}))
    assert all(remark.area == area for remark in found)
    return [remark.line for remark in found]


@pytest.mark.parametrize(
    ("area", "line"),
    [
        ("global_section", "log 127.0.0.1:514 local0 notice"),
        ("global_section", "tune.ssl.cachesize 40000"),
        ("global_section", "ssl-default-bind-ciphersuites TLS_AES_256_GCM_SHA384"),
        ("defaults", "timeout client 30s"),
        ("defaults", "no option http-no-delay"),
        ("defaults", "option httplog"),
        ("frontend", "bind 127.0.0.1:9000 accept-proxy"),
        ("frontend", "# frontend x"),
        ("frontend", "http-request deny if { src 10.0.0.0/8 }  # mode tcp"),
        ("frontend", 'http-request set-header x-frontend "backend $"'),
        ("frontend", "http-request track-sc4 src"),
        ("frontend", "stats uri /haproxy"),
        ("frontend", ""),
        ("backend", "http-response set-header x-served-by slipway"),
        ("backend", "default-server inter 2s"),
    ],
)
def test_ordinary_lines_are_left_to_haproxy(area: str, line: str) -> None:
    assert refused(area, line) == []


@pytest.mark.parametrize("area", custom.AREAS)
@pytest.mark.parametrize(
    "line",
    [
        "frontend mine",
        "  backend be_0001",
        "listen stats",
        "global",
        "defaults",
        "program shell",
        "frontend#x",
        '"fron"tend mine',
        "\\x66rontend mine",
        "'listen' mine",
        '"${SECTION}" mine',
        "no frontend mine",
        ".if true",
        "mode tcp",
        "option external-check",
        'option "external-check"',
        "no option external-check",
        "http-request track-sc0 src",
        "tcp-request content track-sc3 src",
        "http-request\x0b deny",
    ],
)
def test_a_line_that_leaves_its_section_or_breaks_the_router_is_refused(
    area: str, line: str
) -> None:
    assert refused(area, "# fine", line) == [2]


@pytest.mark.parametrize(
    ("area", "line"),
    [
        ("global_section", "stats socket /tmp/other.sock level admin"),
        ("global_section", "chroot /var/empty"),
        ("global_section", "user nobody"),
        ("global_section", "daemon"),
        ("global_section", "nbthread 4"),
        ("global_section", "lua-load /tmp/mine.lua"),
        ("global_section", "setenv X frontend"),
        ("frontend", "default_backend be_0001"),
        ("backend", "server mine 10.0.0.1:80"),
        ("backend", "balance roundrobin"),
    ],
)
def test_what_slipway_rests_on_is_refused_in_its_own_area(area: str, line: str) -> None:
    [remark] = custom.problems(CustomLines(**{area: (line,)}))
    assert remark.line == 1
    assert line.split()[0] in remark.message


def test_the_numbers_of_lines_and_characters_have_limits() -> None:
    assert refused("defaults", *["# x"] * MOST_LINES) == []
    assert refused("defaults", *["# x"] * (MOST_LINES + 1)) == [0]
    assert refused("defaults", "#" * LONGEST_LINE) == []
    assert refused("defaults", "#" * (LONGEST_LINE + 1)) == [1]


def test_a_text_keeps_its_line_numbers_and_comes_back_as_it_was() -> None:
    text = "\r\n  log 127.0.0.1:514 local0 \r\n\r\ntune.bufsize 65536\r\n\r\n"
    lines = custom.read({"global_section": text})
    assert lines.global_section == ("", "  log 127.0.0.1:514 local0", "", "tune.bufsize 65536")
    assert custom.texts(lines)["global_section"] == "\n".join(lines.global_section)
    assert custom.read(custom.texts(lines)) == lines


def test_a_remark_names_its_line() -> None:
    assert str(Remark("defaults", 3, "no.")) == "Line 3: no."
    assert str(Remark("defaults", 0, "No.")) == "No."

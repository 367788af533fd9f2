"""What of a router's settings goes where, and what HAProxy's words mean to a person. Pure."""

from dataclasses import replace

import pytest

from deployments.clusters.custom import Remark
from deployments.types import CustomLines, RouterSpec, TlsSpec, TokenKey
from router import setup
from router.haproxy.render import BackendShape, RouterConfig

TLS = TlsSpec("score.example.com", "CHAIN\n\nMORE\n", "KEY\n")
KEYS = (TokenKey("new", "NEW\n"), TokenKey("old", "OLD"))
SPEC = RouterSpec(generation=3, tls=TLS, custom=CustomLines(defaults=("a",)), token_keys=KEYS)
CONFIG = RouterConfig(
    bind="127.0.0.1", port=1, stats_socket="s", body_socket="b", backends=(BackendShape(),)
)


def test_files_are_the_certificate_and_the_token_keys_newest_first() -> None:
    assert setup.files(SPEC) == {
        "site.pem": "KEY\nCHAIN\nMORE\n",
        "token-1.pem": "NEW\n",
        "token-2.pem": "OLD\n",
    }
    assert setup.files(RouterSpec()) == {}
    three = replace(SPEC, token_keys=(*KEYS, TokenKey("older", "OLDER")))
    assert setup.files(three) == setup.files(SPEC)


def test_the_configuration_has_the_ports_the_lines_and_the_keys_names() -> None:
    made = setup.configured(CONFIG, SPEC, 8443)
    assert (made.tls_port, made.plain_http, made.custom) == (8443, False, SPEC.custom)
    assert made.token_keys == ("new", "old")
    both = setup.configured(CONFIG, replace(SPEC, tls=replace(TLS, plain_http=True)), 8443)
    assert (both.tls_port, both.plain_http) == (8443, True)
    assert setup.configured(CONFIG, RouterSpec(), 8443) == CONFIG


@pytest.mark.parametrize(
    ("after", "reload"),
    [
        (SPEC, False),
        (replace(SPEC, generation=4), False),
        (replace(SPEC, revoked_tokens=("x",)), False),
        (replace(SPEC, tls=replace(TLS, chain="OTHER", key="OTHER")), False),
        (replace(SPEC, tls=replace(TLS, plain_http=True)), True),
        (replace(SPEC, tls=None), True),
        (replace(SPEC, custom=CustomLines()), True),
        (replace(SPEC, token_keys=KEYS[:1]), True),
        (replace(SPEC, token_keys=(TokenKey("new", "OTHER"), KEYS[1])), True),
    ],
)
def test_only_what_is_read_at_the_start_needs_a_reload(after: RouterSpec, reload: bool) -> None:
    assert setup.needs_reload(SPEC, after) is reload
    assert setup.needs_reload(after, SPEC) is reload


def test_no_secret_is_in_what_names_a_configuration() -> None:
    secret = replace(SPEC, tls=replace(TLS, key="ANOTHER"))
    assert setup.configured(CONFIG, SPEC, 1) == setup.configured(CONFIG, secret, 1)


def test_a_start_falls_back_to_what_ran_then_to_no_lines_then_to_nothing() -> None:
    kept = RouterSpec(tls=TLS)
    assert setup.fallbacks(SPEC, kept) == [
        SPEC,
        kept,
        replace(SPEC, custom=CustomLines()),
        RouterSpec(token_keys=KEYS),
        RouterSpec(),
    ]
    assert setup.fallbacks(None, kept) == [kept, RouterSpec()]
    assert setup.fallbacks(None, None) == [RouterSpec()]


LINES = CustomLines(
    global_section=("log 10.0.0.1:514 local0", "", "tune.x 1"),
    defaults=("timeout client 30s",),
    frontend=("timeout client 30s", "http-request x"),
    backend=("http-request x",),
)
TEXT = """\
global
    log 10.0.0.1:514 local0

    tune.x 1

defaults base
    mode http
    timeout client 30s

frontend scoring from base
    timeout client 30s
    http-request x
    # timeout client 30s

defaults replicas from base
    http-request x
"""


@pytest.mark.parametrize(
    ("row", "area", "line"),
    [
        (2, "global_section", 1),
        (4, "global_section", 3),
        (7, "", 0),
        (8, "defaults", 1),
        (11, "frontend", 1),
        (12, "frontend", 2),
        (13, "", 0),
        (16, "backend", 1),
    ],
)
def test_haproxys_line_number_becomes_the_persons(row: int, area: str, line: int) -> None:
    said = f"[ALERT]    (7) : config : parsing [/x/.check-a1/haproxy.cfg:{row}] : no such thing."
    [remark] = setup.remarks(said, TEXT, LINES)
    assert (remark.area, remark.line) == (area, line)
    assert remark.message.endswith("no such thing.")
    assert "/x/" not in remark.message


def test_alerts_come_before_warnings_and_sums_are_left_out() -> None:
    said = """\
[NOTICE]   (7) : haproxy version is 2.8.25
[WARNING]  (7) : config : parsing [/x/.check-a1/haproxy.cfg:8] : is late.
[ALERT]    (7) : config : parsing [/x/.check-a1/haproxy.cfg:4] : unknown keyword 'tune.x'
[ALERT]    (7) : config : Error(s) found in configuration file : /x/.check-a1/haproxy.cfg
[ALERT]    (7) : config : Fatal errors found in configuration.
"""
    assert setup.remarks(said, TEXT, LINES) == [
        Remark("global_section", 3, "unknown keyword 'tune.x'"),
        Remark("defaults", 1, "is late."),
    ]


def test_a_refusal_holds_haproxys_own_words() -> None:
    refused = "[ALERT]    (7) : config : parsing [/x/.check-a1/haproxy.cfg:8] : no such thing."
    message = f"HAProxy refuses the configuration: {refused}"
    assert setup.told(message, f"[NOTICE] (7) : x\n{refused}\n") == (
        "HAProxy refuses the configuration: parsing [haproxy.cfg:8] : no such thing."
    )
    bound = "[ALERT]    (7) : Binding [/y/haproxy.cfg:9] for frontend: cannot bind socket"
    assert setup.told("It would not start.", f"Success=0\n--\n{bound}").endswith("bind socket")
    assert setup.told("It did not answer.", "") == "It did not answer."


def test_without_lines_every_word_is_about_the_routers_own() -> None:
    said = "[ALERT]    (7) : config : parsing [/x/.check-a1/haproxy.cfg:2] : no."
    assert setup.remarks(said, TEXT, CustomLines()) == [
        Remark("", 0, "parsing [haproxy.cfg:2] : no.")
    ]

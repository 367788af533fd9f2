"""What is an origin, and its one spelling. Pure."""

import pytest

from deployments.errors import InvalidInput
from deployments.services.cors import MOST, origins


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("*", "*"),
        (" * ", "*"),
        ("https://app.example.com", "https://app.example.com"),
        ("https://App.Example.COM/", "https://app.example.com"),
        ("https://app.example.com:443", "https://app.example.com"),
        ("http://app.example.com:443", "http://app.example.com:443"),
        ("http://localhost:80", "http://localhost"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://localhost:03000", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("http://10.0.0.1:65535", "http://10.0.0.1:65535"),
    ],
)
def test_an_origin_has_one_spelling(given: str, kept: str) -> None:
    assert origins([given]) == (kept,)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "null",
        "app.example.com",
        "ftp://app.example.com",
        "https://",
        "https://app.example.com/path",
        "https://*.example.com",
        "https://user@app.example.com",
        "https://app example.com",
        "https://app.example.com\nhttps://b.example.com",
        "https://app..example.com",
        "https://-app.example.com",
        "http://localhost:0",
        "http://localhost:65536",
        "http://[::g]",
        "http://[1.2.3.4]",
        "https://müller.example.com",
        "https://" + "a." * 100 + "com",
    ],
)
def test_what_is_no_origin_is_refused(given: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        origins([given])
    assert caught.value.field == "cors_origins"


def test_each_is_kept_once_and_their_number_has_a_limit() -> None:
    assert origins(["https://a.example", "https://A.example:443", "*"]) == (
        "https://a.example",
        "*",
    )
    many = [f"https://a{number}.example" for number in range(MOST + 1)]
    assert len(origins(many[:-1])) == MOST
    with pytest.raises(InvalidInput, match="at most 100"):
        origins(many)

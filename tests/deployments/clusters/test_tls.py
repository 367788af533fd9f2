"""What a router's certificate must be: each rule with both of its sides. Pure."""

from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from deployments.clusters import tls
from tests.deployments.clusters.authority import NOW, Issued, issue, pem_of

HOST = "score.example.com"

# Signed by itself with SHA-1, by OpenSSL; valid until 2046. Its key was thrown away.
SHA1_PEM = """\
-----BEGIN CERTIFICATE-----
MIIBqTCCAVCgAwIBAgIUdune5zQD60mhASizTPvNpoEf+e8wCQYHKoZIzj0EATAc
MRowGAYDVQQDDBFzY29yZS5leGFtcGxlLmNvbTAeFw0yNjExMjIxNjMyNDhaFw00
NjExMTcxNjMyNDhaMBwxGjAYBgNVBAMMEXNjb3JlLmV4YW1wbGUuY29tMFkwEwYH
KoZIzj0CAQYIKoZIzj0DAQcDQgAEuTTJDB5Emia43BXxLdRLvvUKYJc2KKlQU/Gt
3D2GWAigRnhnW75e7eunZVM8uqABq8Ljzi0DAJyOWKcXb7J4M6NxMG8wHQYDVR0O
BBYEFLoSNVRkw3En0CyY/1ReBmmyG4loMB8GA1UdIwQYMBaAFLoSNVRkw3En0CyY
/1ReBmmyG4loMA8GA1UdEwEB/wQFMAMBAf8wHAYDVR0RBBUwE4IRc2NvcmUuZXhh
bXBsZS5jb20wCQYHKoZIzj0EAQNIADBFAiEAm4PqAbp2hK4iv1lRkeEHmDo2a8wS
zm/tbCGbWkGlm1UCIEMQ2n2BXftzwFjZ/v8wyG/e4lsU8PyYLL8IhTNLTyuh
-----END CERTIFICATE-----
"""


@pytest.fixture(scope="module")
def root() -> Issued:
    return issue("Test Root", authority=True)


@pytest.fixture(scope="module")
def middle(root: Issued) -> Issued:
    return issue("Test Intermediate", root, authority=True)


@pytest.fixture(scope="module")
def leaf(middle: Issued) -> Issued:
    return issue(HOST, middle, names=(HOST,))


def said(chain: str, key: str, cname: str = HOST, **more: Any) -> list[tuple[str, str]]:
    return [
        (item.field, item.message)
        for item in tls.problems(chain, key, cname, more.pop("now", NOW), **more)
    ]


def only(found: list[tuple[str, str]], field: str, words: str) -> None:
    assert [name for name, _ in found] == [field], found
    assert words in found[0][1]


def test_a_chain_in_order_with_its_key_is_good(leaf: Issued, middle: Issued, root: Issued) -> None:
    assert said(leaf.pem + middle.pem, leaf.key_pem) == []
    assert said(leaf.pem + middle.pem + root.pem, leaf.key_pem) == []
    found = tls.certificate("a comment\n" + leaf.pem + middle.pem)
    assert (found.subject, found.issuer, found.names) == (HOST, "Test Intermediate", (HOST,))
    assert (found.key, found.length, found.self_signed) == ("ECDSA P-256", 2, False)
    assert tls.notes(found, NOW) == []


def test_a_certificate_that_signed_itself_is_taken_with_a_note() -> None:
    own = issue(HOST, names=(HOST,))
    assert said(own.pem, own.key_pem) == []
    assert ["signed itself" in note for note in tls.notes(tls.certificate(own.pem), NOW)] == [True]


def test_a_leaf_alone_is_taken_with_a_note_that_names_its_issuer(leaf: Issued) -> None:
    assert said(leaf.pem, leaf.key_pem) == []
    [note] = tls.notes(tls.certificate(leaf.pem), NOW)
    assert "Test Intermediate" in note


def test_the_validity_holds_up_to_its_last_second(leaf: Issued, middle: Issued) -> None:
    begins, ends = leaf.certificate.not_valid_before_utc, leaf.certificate.not_valid_after_utc
    second = timedelta(seconds=1)
    # the intermediate ends with it
    assert said(leaf.pem, leaf.key_pem, now=begins) == []
    only(said(leaf.pem, leaf.key_pem, now=begins - second), tls.CHAIN, "not valid before")
    assert said(leaf.pem, leaf.key_pem, now=ends) == []
    only(said(leaf.pem, leaf.key_pem, now=ends + second), tls.CHAIN, "has expired")


def test_an_intermediate_that_expired_is_as_bad(root: Issued) -> None:
    old = issue("Old", root, authority=True, ends=NOW - timedelta(seconds=1))
    leaf = issue(HOST, old, names=(HOST,))
    only(said(leaf.pem + old.pem, leaf.key_pem), tls.CHAIN, "Certificate 2 (Old) has expired")
    assert tls.certificate(leaf.pem + old.pem).not_after == old.certificate.not_valid_after_utc


@pytest.mark.parametrize(
    ("names", "cname", "covered"),
    [
        ((HOST,), HOST, True),
        ((HOST,), HOST.upper(), True),
        ((HOST,), "other.example.com", False),
        (("*.example.com",), HOST, True),
        (("*.example.com",), "a.score.example.com", False),
        (("*.example.com",), "example.com", False),
        (("*.com",), "example.com", False),
        (("10.0.0.1",), "10.0.0.1", True),
        (("10.0.0.1",), "10.0.0.2", False),
        (("::1",), "::1", True),
        (("*.0.0.1",), "10.0.0.1", False),
        ((), HOST, False),
    ],
)
def test_the_name_must_be_among_the_alternative_names(
    names: tuple[str, ...], cname: str, covered: bool
) -> None:
    own = issue(HOST, names=names)
    found = said(own.pem, own.key_pem, cname)
    if covered:
        assert found == []
    else:
        only(found, tls.CNAME, cname)


@pytest.mark.parametrize(
    ("cname", "good"),
    [
        ("localhost", True),
        ("a" * 63 + ".example.com", True),
        ("a" * 64 + ".example.com", False),
        ("", False),
        ("https://score.example.com", False),
        ("score.example.com:8443", False),
        ("*.example.com", False),
        ("-a.example.com", False),
        ("a..example.com", False),
        ("müller.example.com", False),
    ],
)
def test_a_cname_is_a_host_name(cname: str, good: bool) -> None:
    assert (tls.cname_problems(cname) == []) is good


def test_a_key_of_another_certificate_is_refused(leaf: Issued, middle: Issued) -> None:
    only(said(leaf.pem + middle.pem, middle.key_pem), tls.KEY, "does not belong")


def test_the_order_of_the_chain_is_told(leaf: Issued, middle: Issued, root: Issued) -> None:
    only(said(leaf.pem + root.pem + middle.pem, leaf.key_pem), tls.CHAIN, "not in order")
    stranger = issue("Stranger", authority=True)
    only(said(leaf.pem + stranger.pem, leaf.key_pem), tls.CHAIN, "Stranger comes after it")
    namesake = issue("Test Intermediate", root, authority=True)
    only(said(leaf.pem + namesake.pem, leaf.key_pem), tls.CHAIN, "was not signed by")
    plain = issue("Plain", root)
    below = issue(HOST, plain, names=(HOST,))
    only(said(below.pem + plain.pem, below.key_pem), tls.CHAIN, "is no authority")


@pytest.mark.parametrize(
    ("key", "good"),
    [
        (rsa.generate_private_key(65537, 1024), False),
        (rsa.generate_private_key(65537, 2048), True),
        (ec.generate_private_key(ec.SECP384R1()), True),
        (ec.generate_private_key(ec.SECP224R1()), False),
        (ed25519.Ed25519PrivateKey.generate(), False),
    ],
    ids=["rsa 1024", "rsa 2048", "p-384", "p-224", "ed25519"],
)
def test_keys_are_rsa_of_2048_bits_or_ecdsa(key: Any, good: bool, middle: Issued) -> None:
    made = issue(HOST, middle, names=(HOST,), key=key)
    found = said(made.pem + middle.pem, made.key_pem)
    if good:
        assert found == []
    else:
        assert (tls.CHAIN, True) in [(field, "RSA of 2048" in words) for field, words in found]


def test_another_kind_of_key_is_named(leaf: Issued) -> None:
    key = dsa.generate_private_key(1024)
    only(said(leaf.pem, pem_of(key)), tls.KEY, "DSAPrivateKey is not taken")


def test_sha1_is_refused(root: Issued) -> None:
    """`cryptography` signs with SHA-1 no more, so what carries it was made with OpenSSL."""
    leaf = issue(HOST, root, names=(HOST,), hashed=hashes.SHA224())
    assert said(leaf.pem + root.pem, leaf.key_pem) == []
    after = timedelta(days=1)
    found = said(SHA1_PEM, leaf.key_pem, now=NOW + after)
    assert (tls.CHAIN, True) in [(field, "SHA1" in words) for field, words in found]


def test_a_certificate_for_clients_only_is_refused(middle: Issued) -> None:
    for usage, good in (
        (ExtendedKeyUsageOID.CLIENT_AUTH, False),
        (ExtendedKeyUsageOID.SERVER_AUTH, True),
        (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE, True),
    ):
        made = issue(HOST, middle, names=(HOST,), usages=(usage,))
        found = said(made.pem + middle.pem, made.key_pem)
        assert (found == []) is good


def test_an_encrypted_key_needs_its_passphrase(leaf: Issued, middle: Issued) -> None:
    chain, locked = leaf.pem + middle.pem, pem_of(leaf.key, "open sesame")
    only(said(chain, locked), tls.PASSPHRASE, "encrypted")
    only(said(chain, locked, passphrase="wrong"), tls.PASSPHRASE, "does not open")
    assert said(chain, locked, passphrase="open sesame") == []
    assert said(chain, leaf.key_pem, passphrase="not needed") == []


def test_what_is_kept_is_clean_pem_and_an_open_key(leaf: Issued, middle: Issued) -> None:
    given = "\n\nsubject=...\n" + leaf.pem + "\n\n" + middle.pem
    chain, key = tls.normalised(given, pem_of(leaf.key, "open sesame"), "open sesame")
    assert chain == leaf.pem + middle.pem
    assert key == leaf.key_pem
    assert "" not in (chain + key).strip().splitlines()


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        ("", "Give the certificate chain"),
        ("junk", "no certificate in PEM"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be read"),
        ("-----BEGIN CERTIFICATE-----\n" + "A" * tls.LONGEST_TEXT, "at most"),
    ],
)
def test_what_is_no_certificate_is_told(chain: str, words: str, leaf: Issued) -> None:
    only(said(chain, leaf.key_pem), tls.CHAIN, words)


def test_no_message_repeats_a_key(leaf: Issued) -> None:
    secret = leaf.key_pem.splitlines()[1]
    only(said(leaf.pem + leaf.key_pem, leaf.key_pem), tls.CHAIN, "private key among")
    broken = leaf.key_pem.replace("PRIVATE KEY", "PRIVATE KEEY")
    only(said(leaf.pem, broken), tls.KEY, "no private key in PEM")
    for found in (said(leaf.pem + leaf.key_pem, ""), said(leaf.pem, broken)):
        assert secret not in str(found)


def test_many_certificates_are_no_chain(leaf: Issued) -> None:
    most = tls.MOST_CERTIFICATES
    assert "at most" not in str(said(leaf.pem * most, leaf.key_pem))
    only(said(leaf.pem * (most + 1), leaf.key_pem), tls.CHAIN, "at most 10")


@pytest.mark.parametrize(
    ("left", "tone", "words"),
    [
        (timedelta(days=31), "", "in 31 days"),
        (timedelta(days=30, seconds=1), "", "in 30 days"),
        (timedelta(days=30), "warn", "in 30 days"),
        (timedelta(days=1), "warn", "in 1 day,"),
        (timedelta(seconds=1), "warn", "in less than a day"),
        (timedelta(0), "bad", "has expired"),
    ],
)
def test_an_expiry_is_shown_thirty_days_ahead(left: timedelta, tone: str, words: str) -> None:
    assert tls.expiry_tone(NOW + left, NOW) == tone
    assert words in tls.expiry(NOW + left, NOW)


def test_without_a_certificate_nothing_expires() -> None:
    assert tls.expiry_tone(None, NOW) == ""

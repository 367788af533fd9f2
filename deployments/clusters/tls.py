"""Whether a certificate chain and its key are fit for a cluster's router.

PURE. What a person brought is read by the `cryptography` package; everything that is wrong with it is
said at once, each with the field it belongs to. What is odd but lawful (a certificate that signed
itself, a chain without intermediates) is a note, not a problem: who runs a private authority knows.

The key is looked at here and never repeated in a message.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deployments.errors import InvalidInput

# The fields of a form that problems belong to.
CHAIN, KEY, CNAME, PASSPHRASE = "chain", "key", "cname", "passphrase"

SHORTEST_RSA = 2048  # bits
LONGEST_TEXT = 40_000  # characters; HAProxy takes both together in one buffer of 64 KiB
MOST_CERTIFICATES = 10
SOON = timedelta(days=30)  # an expiry this near is shown
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_BROKEN_HASHES = ("md5", "sha1")
_HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-.")

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a chain shows a person. Times are aware; `names` are what its first certificate is for."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    key: str  # "ECDSA P-256"
    fingerprint: str  # SHA-256 of the first certificate, upper-case hex with colons
    length: int  # certificates in the chain
    self_signed: bool


def problems(
    chain_pem: str, key_pem: str, cname: str, now: datetime, passphrase: str = ""
) -> list[InvalidInput]:
    """Everything that keeps the router from taking these. Empty is good."""
    found = cname_problems(cname)
    try:
        chain = _chain(chain_pem)
    except InvalidInput as error:
        chain = []
        found.append(error)
    else:
        found += _chain_problems(chain, now)
        if not found:
            found += _name_problems(chain[0], cname)
    try:
        key = _key(key_pem, passphrase)
    except InvalidInput as error:
        found.append(error)
    else:
        if chain and not _belong(key, chain[0]):
            found.append(
                InvalidInput(
                    "This key does not belong to the first certificate of the chain. Choose the key "
                    "that the certificate was requested with; the server's own certificate must "
                    "come first.",
                    field=KEY,
                )
            )
    return found


def cname_problems(cname: str) -> list[InvalidInput]:
    """Whether it is a host name or an IP address that can stand in an address."""
    if _address(cname) is not None:
        return []
    labels = cname.split(".")
    wrong = ""
    if not cname:
        wrong = "Give the name that clients reach the router by, such as score.example.com."
    elif not cname.isascii():
        wrong = "Write the name in its ASCII form (xn--…), as the certificate has it."
    elif "*" in cname:
        wrong = "Give one name, not a wildcard; a wildcard certificate may cover it."
    elif set(cname.lower()) - _HOST_CHARACTERS:
        wrong = f"{cname[:60]} is not a host name; write no scheme, port or path."
    elif len(cname) > 253 or any(
        not label or len(label) > 63 or label.startswith("-") or label.endswith("-")
        for label in labels
    ):
        wrong = f"{cname[:60]} is not a host name."
    return [InvalidInput(wrong, field=CNAME)] if wrong else []


def certificate(chain_pem: str) -> Certificate:
    """What the chain says about itself. Raises InvalidInput when it cannot be read."""
    chain = _chain(chain_pem)
    leaf = chain[0]
    return Certificate(
        subject=_common_name(leaf.subject),
        issuer=_common_name(leaf.issuer),
        names=_names(leaf),
        not_before=leaf.not_valid_before_utc,
        not_after=min(item.not_valid_after_utc for item in chain),
        key=_kind(leaf.public_key()) or "unknown",
        fingerprint=leaf.fingerprint(hashes.SHA256()).hex(":").upper(),
        length=len(chain),
        self_signed=_signed_by(leaf, leaf),
    )


def notes(found: Certificate, now: datetime) -> list[str]:
    """What a person should know about a chain that is accepted."""
    said = []
    if found.self_signed:
        said.append(
            "The certificate signed itself: clients accept it only when they are told to trust it."
        )
    elif found.length == 1:
        said.append(
            f"The chain is the server's certificate alone. Clients that do not have {found.issuer} "
            "itself refuse it; append the intermediate certificates, unless that is your own root."
        )
    if found.not_after - now <= SOON:
        said.append(expiry(found.not_after, now))
    return said


def expiry(not_after: datetime, now: datetime) -> str:
    """How long a certificate lasts, in words."""
    left = not_after - now
    if left <= timedelta(0):
        return f"The certificate has expired on {not_after:%Y-%m-%d}: clients refuse the router."
    days = left.days
    when = "in less than a day" if days == 0 else f"in {days} day{'s' if days != 1 else ''}"
    return f"The certificate expires {when}, on {not_after:%Y-%m-%d}."


def expiry_tone(not_after: datetime | None, now: datetime) -> str:
    """ "" while there is time, "warn" within 30 days, "bad" once it has expired."""
    if not_after is None:
        return ""
    if not_after <= now:
        return "bad"
    return "warn" if not_after - now <= SOON else ""


def normalised(chain_pem: str, key_pem: str, passphrase: str = "") -> tuple[str, str]:
    """(chain, key) as PEM without anything around it, the key unencrypted PKCS 8.

    For input without problems. No line is empty: HAProxy ends a payload there.
    """
    chain = b"".join(
        item.public_bytes(serialization.Encoding.PEM) for item in _chain(chain_pem)
    ).decode()
    key = _key(key_pem, passphrase).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return chain, key.decode()


# ---- reading -----------------------------------------------------------------------------------


def _chain(text: str) -> list[x509.Certificate]:
    if not text.strip():
        raise InvalidInput("Give the certificate chain in PEM.", field=CHAIN)
    if "PRIVATE KEY-----" in text:
        raise InvalidInput(
            "There is a private key among the certificates; give it in its own field.", field=CHAIN
        )
    if len(text) > LONGEST_TEXT:
        raise InvalidInput(
            f"The chain has {len(text):,} characters; at most {LONGEST_TEXT:,} are taken.",
            field=CHAIN,
        )
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise InvalidInput(
            "This is no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----. A DER "
            "file becomes one by `openssl x509 -inform der -in file -out chain.pem`.",
            field=CHAIN,
        )
    try:
        found = x509.load_pem_x509_certificates(text.encode())
        for item in found:  # parsed lazily: what is wrong with them comes out here
            _names(item)
            item.public_key()
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
        raise InvalidInput(
            "A certificate cannot be read. Is a line missing, or was it cut while copying?",
            field=CHAIN,
        ) from error
    if len(found) > MOST_CERTIFICATES:
        raise InvalidInput(
            f"There are {len(found)} certificates; a chain has at most {MOST_CERTIFICATES}.",
            field=CHAIN,
        )
    return found


def _key(text: str, passphrase: str) -> PrivateKey:
    if not text.strip():
        raise InvalidInput("Give the private key in PEM.", field=KEY)
    if len(text) > LONGEST_TEXT:
        raise InvalidInput("This is too large for a private key.", field=KEY)
    encrypted = "ENCRYPTED" in text
    if encrypted and not passphrase:
        raise InvalidInput(
            "The key is encrypted: give its passphrase too. It is used once and not kept.",
            field=PASSPHRASE,
        )
    try:
        found = serialization.load_pem_private_key(
            text.encode(), passphrase.encode() if encrypted else None
        )
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if encrypted and "password" in str(error).lower():
            raise InvalidInput("This passphrase does not open the key.", field=PASSPHRASE) from None
        raise InvalidInput(
            "This is no private key in PEM, which begins with -----BEGIN PRIVATE KEY----- "
            "(or EC or RSA PRIVATE KEY).",
            field=KEY,
        ) from None
    if not isinstance(found, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
        raise InvalidInput(
            f"{type(found).__name__.strip('_')} is not taken; use RSA of {SHORTEST_RSA} bits or "
            "more, or ECDSA.",
            field=KEY,
        )
    return found


# ---- judging -----------------------------------------------------------------------------------


def _chain_problems(chain: list[x509.Certificate], now: datetime) -> Iterable[InvalidInput]:
    found = []
    for number, item in enumerate(chain):
        name = _shown(item, number)
        if now < item.not_valid_before_utc:
            found.append(
                f"{name} is not valid before {item.not_valid_before_utc:%Y-%m-%d %H:%M} UTC."
            )
        if now > item.not_valid_after_utc:
            found.append(f"{name} has expired on {item.not_valid_after_utc:%Y-%m-%d %H:%M} UTC.")
        if not _kind(item.public_key()):
            found.append(
                f"{name} has a key that is not taken; use RSA of {SHORTEST_RSA} bits or more, or "
                "ECDSA on P-256, P-384 or P-521."
            )
        # what a root says of itself nobody verifies
        root = number > 0 and _signed_by(item, item)
        if not root and (hashed := _hash(item)) in _BROKEN_HASHES:
            found.append(f"{name} is signed with {hashed.upper()}, which clients refuse.")
    if _refuses_servers(chain[0]):
        found.append("The first certificate may not be used for servers (extended key usage).")
    found += _link_problems(chain)
    return [InvalidInput(message, field=CHAIN) for message in found]


def _link_problems(chain: list[x509.Certificate]) -> list[str]:
    for number, (item, above) in enumerate(zip(chain, chain[1:], strict=False)):
        if _signed_by(item, above):
            if not _is_authority(above):
                return [f"{_shown(above, number + 1)} is no authority, so it cannot sign others."]
            continue
        if any(_signed_by(item, other) for other in chain if other is not item):
            return [
                "The certificates are not in order: the server's own comes first, then the one that "
                "signed it, and so on."
            ]
        if item.issuer == above.subject:
            return [f"{_shown(item, number)} was not signed by the key of the one after it."]
        return [
            f"{_shown(item, number)} was issued by {_common_name(item.issuer)}, but "
            f"{_common_name(above.subject)} comes after it. Leave out what does not belong to the "
            "chain."
        ]
    return []


def _name_problems(leaf: x509.Certificate, cname: str) -> list[InvalidInput]:
    names = _names(leaf)
    if covers(names, cname):
        return []
    if not names:
        message = (
            f"The certificate has no subject alternative names, and clients look nowhere else: ask "
            f"for one with DNS:{cname}."
        )
    else:
        shown = ", ".join(names[:5]) + (" and more" if len(names) > 5 else "")
        message = f"The certificate is for {shown}, not for {cname}."
    return [InvalidInput(message, field=CNAME)]


def covers(names: Iterable[str], cname: str) -> bool:
    """Whether one of a certificate's names is this host's; a wildcard stands for one whole label."""
    wanted = cname.lower().rstrip(".")
    address = _address(wanted)
    for name in names:
        if address is not None:
            if _address(name) == address:
                return True
            continue
        pattern = name.lower().rstrip(".")
        if pattern == wanted:
            return True
        head, _, rest = wanted.partition(".")
        if pattern.startswith("*.") and head and "." in rest and pattern[2:] == rest:
            return True
    return False


def _belong(key: PrivateKey, leaf: x509.Certificate) -> bool:
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return key.public_key().public_bytes(*form) == leaf.public_key().public_bytes(*form)


def _signed_by(item: x509.Certificate, above: x509.Certificate) -> bool:
    try:
        item.verify_directly_issued_by(above)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _is_authority(item: x509.Certificate) -> bool:
    try:
        return item.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _refuses_servers(leaf: x509.Certificate) -> bool:
    try:
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    allowed = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
    return not any(usage in allowed for usage in usages)


def _kind(key: object) -> str:
    """ "RSA 2048" or "ECDSA P-256"; empty for a key that is not taken."""
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}" if key.key_size >= SHORTEST_RSA else ""
    if isinstance(key, ec.EllipticCurvePublicKey):
        curve = _CURVES.get(key.curve.name)
        return f"ECDSA {curve}" if curve else ""
    return ""


def _hash(item: x509.Certificate) -> str:
    try:
        used = item.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return "an unknown algorithm"
    return used.name if used is not None else ""


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    hosts = names.get_values_for_type(x509.DNSName)
    return (*hosts, *(str(item) for item in names.get_values_for_type(x509.IPAddress)))


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else name.rfc4514_string() or "(no name)"


def _shown(item: x509.Certificate, number: int) -> str:
    return f"Certificate {number + 1} ({_common_name(item.subject)})"


def _address(text: str) -> object | None:
    try:
        return ip_address(text.strip("[]"))
    except ValueError:
        return None

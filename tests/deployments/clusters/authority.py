"""An authority of the tests' own: certificates as they should be, and as they should not."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
YEAR = timedelta(days=365)


def pem_of(key: Any, passphrase: str = "") -> str:
    how: Any = serialization.NoEncryption()
    if passphrase:
        how = serialization.BestAvailableEncryption(passphrase.encode())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how
    ).decode()


@dataclass
class Issued:
    """A certificate with its key, which signs others where it is an authority."""

    name: str
    key: Any
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        return pem_of(self.key)


def issue(
    name: str,
    by: Issued | None = None,
    *,
    names: tuple[str, ...] = (),
    authority: bool = False,
    key: Any = None,
    begins: datetime = NOW - timedelta(days=1),
    ends: datetime = NOW + YEAR,
    hashed: Any = None,
    usages: tuple[x509.ObjectIdentifier, ...] = (),
) -> Issued:
    """A certificate for `names` (hosts and addresses), signed by `by` or by itself."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )
    if names:
        general = [_general(item) for item in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    if authority:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    signer = by.key if by else key
    return Issued(name, key, builder.sign(signer, hashed or hashes.SHA256()))


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)

"""Tokens as the portal issues them, and as it never would. For the tests of the router."""

import base64
import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from deployments.types import TokenKey

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256


@dataclass
class Issuer:
    """One key pair. Claims that are None are left out of a token."""

    kid: str = field(default_factory=lambda: uuid.uuid4().hex[:16])
    private: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    @property
    def public_pem(self) -> str:
        public = self.private.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    @property
    def key(self) -> TokenKey:
        return TokenKey(self.kid, self.public_pem)

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        made = {
            "iss": "slipway",
            "aud": "demo",
            "sub": "dan",
            "jti": uuid.uuid4().hex,
            "iat": now,
            "exp": now + 600,
        }
        return {name: value for name, value in (made | changes).items() if value is not None}

    def token(self, kid: str | None = None, **changes: Any) -> str:
        headers = {"kid": kid or self.kid}
        return jwt.encode(self.claims(**changes), self.private, "ES256", headers=headers)

    def raw(self, header: dict[str, Any], claims: dict[str, Any]) -> str:
        """Signed by us whatever the header says, which a library would not do."""
        text = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(claims).encode())}"
        der = self.private.sign(text.encode(), ec.ECDSA(hashes.SHA256()))
        r, s = utils.decode_dss_signature(der)
        return f"{text}.{encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def other_form(token: str) -> str:
    """The same token with its signature written the other way that is just as good."""
    text, _, signature = token.rpartition(".")
    data = base64.urlsafe_b64decode(signature + "==")
    s = _ORDER - int.from_bytes(data[32:], "big")
    return f"{text}.{encoded(data[:32] + s.to_bytes(32, 'big'))}"


def tampered(token: str, **changes: Any) -> str:
    """Other claims under the same signature."""
    header, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "==")) | changes
    return f"{header}.{encoded(json.dumps(claims).encode())}.{signature}"

"""Secrets at rest: Fernet texts under keys that are derived from SECRET_KEY, one for each purpose.

A text that was sealed for one purpose opens for no other. Nothing here logs, and no error repeats what
was sealed.
"""

import base64
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

from deployments.errors import PermanentError

SERVICE_KEYS = "slipway service keys"
SIGNING_KEYS = "slipway signing keys"
TLS_KEYS = "slipway tls keys"
ENGINE_KEYS = "slipway engine keys"
KUBECONFIGS = "slipway kubeconfigs"
REGISTRY_PASSWORDS = "slipway registry passwords"


def seal(secret: str, purpose: str) -> str:
    """A Fernet text of `secret`. `purpose` is one of the constants above."""
    return _fernet(settings.SECRET_KEY, purpose).encrypt(secret.encode()).decode()


def unseal(text: str, purpose: str, *, what: str, remedy: str) -> str:
    """What was sealed. Raises PermanentError (KeysUnreadable) when SECRET_KEY is another one now.

    `what` and `remedy` end up in its message: "<what> cannot be decrypted: ... or <remedy>."
    """
    try:
        return _fernet(settings.SECRET_KEY, purpose).decrypt(text.encode()).decode()
    except InvalidToken as error:
        raise PermanentError(
            f"{what} cannot be decrypted: SLIPWAY_SECRET_KEY is not the one it was encrypted with. "
            f"Bring the old one back, or {remedy}.",
            code="KeysUnreadable",
        ) from error


@lru_cache(maxsize=8)
def _fernet(secret_key: str, purpose: str) -> Fernet:
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode()).derive(
        secret_key.encode()
    )
    return Fernet(base64.urlsafe_b64encode(derived))

"""Who may read what of a node's cache: a key for each content, from the secret that the caches have.

PURE. Whoever has a content's key may read that content, for as long as the secret is the same; unlike the
portal's address (`registry.addresses`) it does not run out, for a pod may start when no portal is there to
renew it.
"""

import hmac

KEY = "X-Slipway-Key"  # the content's key
FROM = "X-Slipway-From"  # its address at the portal
NODE = "X-Slipway-Node"  # the asker's; not there: answer whatever node it is on
HERE = "X-Slipway-Here"  # only what is on this disk: one cache asks another
WRONG = "X-Slipway-Wrong"  # what came before was wrong: verify it


def key(secret: str, sha256: str) -> str:
    """Of one content, in hex."""
    text = f"slipway cached file\n{sha256}"
    return hmac.new(secret.encode(), text.encode(), "sha256").hexdigest()


def good(secret: str, sha256: str, shown: str) -> bool:
    """In the same time whatever is wrong with it; never without a secret."""
    return hmac.compare_digest(key(secret, sha256).encode(), shown.encode()) and bool(secret)

"""From a kubeconfig's text to what reaches one API server.

PURE. Nothing in a kubeconfig is run or opened: whoever gives one may not be who owns this machine. Programs
(`exec`, `auth-provider`), paths of files and switched-off verification are refused, each with what to do
instead; an administrator may let `exec` in.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import yaml

from deployments.errors import InvalidInput
from deployments.types import KubeSpec

FIELD = "kubeconfig"
CONTEXT = "kube_context"
_LONGEST = 1_000_000
_FILES = {
    "certificate-authority": "certificate-authority-data",
    "client-certificate": "client-certificate-data",
    "client-key": "client-key-data",
    "tokenFile": "token",
}


def contexts(text: str) -> tuple[str, ...]:
    """The names of a kubeconfig's contexts, the current one first. Raises InvalidInput."""
    config = _config(text)
    names = [str(item["name"]) for item in _named(config, "contexts")]
    current = config.get("current-context")
    return tuple(sorted(names, key=lambda name: name != current))


def parse(text: str, context: str = "", *, allow_programs: bool = False) -> KubeSpec:
    """One context, the current one where none is named; the only one where none is current.

    Raises InvalidInput with its field.
    """
    config = _config(text)
    names = contexts(text)
    if not names:
        raise _wrong("There is no context in it.")
    chosen = context or str(config.get("current-context") or "")
    if not chosen:
        if len(names) > 1:
            raise InvalidInput(f"Choose one of its contexts: {', '.join(names)}.", field=CONTEXT)
        chosen = names[0]
    if chosen not in names:
        raise InvalidInput(
            f"There is no context {chosen} in it; it has {', '.join(names)}.", field=CONTEXT
        )
    about = _find(config, "contexts", chosen, "context")
    cluster = _find(config, "clusters", str(about.get("cluster", "")), "cluster")
    user = _find(config, "users", str(about.get("user", "")), "user")
    for section in (cluster, user):
        for name, instead in _FILES.items():
            if section.get(name):
                raise _wrong(
                    f"{name} names a file, which is not here. Make a kubeconfig with {instead} in its "
                    "place: kubectl config view --raw --minify --flatten."
                )
    if cluster.get("insecure-skip-tls-verify"):
        raise _wrong(
            "insecure-skip-tls-verify would let anybody take the cluster's place. Give its authority's "
            "certificate as certificate-authority-data."
        )
    if cluster.get("proxy-url"):
        raise _wrong("proxy-url is not supported; the API server must be reached directly.")
    if user.get("auth-provider"):
        raise _wrong(
            "auth-provider runs a program or fetches credentials of a person's. Make a service account "
            "for Slipway and give its token."
        )
    if any(name.startswith("as") and user[name] for name in user):
        raise _wrong("It acts as another user (as, as-groups), which is not supported.")
    program = user.get("exec")
    if program and not allow_programs:
        raise _wrong(
            f"It runs the program {_command(program)} to get its credentials, which would run as Slipway. "
            "Make a service account for Slipway and give its token, or have an administrator set "
            "SLIPWAY_KUBECONFIG_PROGRAMS."
        )
    if user.get("username") or user.get("password"):
        raise _wrong("A user name and password are not supported; give a token or a certificate.")
    spec = KubeSpec(
        server=_server(str(cluster.get("server") or "")),
        ca=_pem(cluster, "certificate-authority-data"),
        token=str(user.get("token") or "").strip(),
        cert=_pem(user, "client-certificate-data"),
        key=_pem(user, "client-key-data"),
        namespace=str(about.get("namespace") or ""),
        tls_server_name=str(cluster.get("tls-server-name") or ""),
        program=json.dumps(program) if program else "",
    )
    if bool(spec.cert) != bool(spec.key):
        raise _wrong("client-certificate-data and client-key-data are needed together.")
    if "ENCRYPTED" in spec.key:
        raise _wrong("Its client key is encrypted; give it without a passphrase.")
    if not (spec.token or spec.cert or spec.program):
        raise _wrong(f"The user of context {chosen} has neither a token nor a certificate.")
    return spec


def inside(environment: Mapping[str, str]) -> KubeSpec | None:
    """How a pod reaches the API server of its own cluster; None where this is no pod."""
    host = environment.get("KUBERNETES_SERVICE_HOST")
    if not host:
        return None
    port = environment.get("KUBERNETES_SERVICE_PORT", "443")
    shown = f"[{host}]" if ":" in host else host
    return KubeSpec(server=f"https://{shown}:{port}", in_cluster=True)


def _config(text: str) -> dict[str, Any]:
    if len(text) > _LONGEST:
        raise _wrong("It is longer than a kubeconfig can be.")
    try:
        config = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        # without the text: it holds secrets
        where = getattr(error, "problem_mark", None)
        at = f" in line {where.line + 1}" if where is not None else ""
        raise _wrong(f"It is not YAML{at}.") from None
    if not isinstance(config, dict) or config.get("kind", "Config") != "Config":
        raise _wrong("It is not a kubeconfig, which begins with kind: Config.")
    return config


def _named(config: Mapping[str, Any], section: str) -> list[dict[str, Any]]:
    items = config.get(section) or []
    if not isinstance(items, list) or not all(
        isinstance(item, dict) and "name" in item for item in items
    ):
        raise _wrong(f"{section} is not a list of things with names.")
    return items


def _find(config: Mapping[str, Any], section: str, name: str, kind: str) -> dict[str, Any]:
    for item in _named(config, section):
        if str(item["name"]) == name:
            found = item.get(kind) or {}
            if isinstance(found, dict):
                return found
    raise _wrong(f"There is no {kind} {name!r} in it, which its context names.")


def _server(text: str) -> str:
    parts = urlsplit(text.strip())
    try:
        port = parts.port
    except ValueError:
        port = -1
    if not parts.hostname or port == -1 or parts.username or parts.query:
        raise _wrong("The cluster's server is not an address such as https://10.0.0.1:6443.")
    if parts.scheme != "https":
        raise _wrong("The API server must be reached by https.")
    return text.strip().rstrip("/")


def _pem(section: Mapping[str, Any], name: str) -> str:
    given = section.get(name)
    if not given:
        return ""
    try:
        text = base64.b64decode(str(given), validate=False).decode()
    except (binascii.Error, ValueError):
        text = ""
    if "-----BEGIN " not in text:
        raise _wrong(f"{name} is not a PEM text in base64.")
    return text


def _command(program: object) -> str:
    return str(program.get("command", "?")) if isinstance(program, dict) else "?"


def _wrong(message: str) -> InvalidInput:
    return InvalidInput(message, field=FIELD)

"""Ask a scanner what is known of a list of packages: trivy, grype, or a server that speaks OSV's API.

Each is given our own CycloneDX document, so none of them touches an image, an Engine or a registry. OSV is
asked at the configured address and nowhere else: no redirect is followed. Every call has a deadline.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from deployments.errors import TemporaryError
from deployments.images import findings
from deployments.images.findings import Finding
from deployments.images.sbom import listing_of

AUTO, NONE, TRIVY, GRYPE, OSV = "auto", "none", "trivy", "grype", "osv"
DEADLINE = 300.0  # seconds: the first run of trivy and grype fetches their database
_CALL = 20.0  # of one request
_BATCH = 1000  # OSV's own limit of queries in one request
_MOST_PAGES = 20
_MOST_OUTPUT = 64 * 2**20
# What a scanner may know of our surroundings: where its database is, and how the network is reached.
_PASSED = ("PATH", "HOME", "TMPDIR", "LANG", "XDG_CACHE_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR")
_PASSED_BEGINNINGS = ("TRIVY_", "GRYPE_")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@dataclass(frozen=True, slots=True)
class Scanner:
    """One that is configured. `name` is shown; `scan` raises TemporaryError when it cannot tell."""

    name: str
    scan: Callable[[dict[str, Any]], list[Finding]]


def configured(choice: str, osv_url: str) -> Scanner | None:
    """The scanner to ask, or None where there is none. `auto`: OSV's address where one is set, else trivy,
    else grype, where they are on the path."""
    if choice in (AUTO, OSV) and osv_url:
        return Scanner(
            f"OSV at {urlsplit(osv_url).netloc}", lambda document: _osv(osv_url, document)
        )
    for name, command in ((TRIVY, _trivy), (GRYPE, _grype)):
        if choice in (AUTO, name) and (path := shutil.which(name)):
            return Scanner(name, _bind(command, path))
    return None


def _bind(
    command: Callable[..., list[Finding]], path: str
) -> Callable[[dict[str, Any]], list[Finding]]:
    return lambda document: command(path, document)


def _trivy(path: str, document: dict[str, Any]) -> list[Finding]:
    return _command(
        [path, "sbom", "--quiet", "--format", "json"], "{}", document, findings.from_trivy
    )


def _grype(path: str, document: dict[str, Any]) -> list[Finding]:
    return _command([path, "--quiet", "-o", "json"], "sbom:{}", document, findings.from_grype)


def _command(
    command: list[str],
    argument: str,
    document: dict[str, Any],
    read: Callable[[Any], list[Finding]],
) -> list[Finding]:
    name = Path(command[0]).name
    with tempfile.TemporaryDirectory(prefix="scan-") as folder:
        file = Path(folder) / "sbom.cdx.json"
        file.write_text(json.dumps(document))
        try:
            done = subprocess.run(
                [*command, argument.format(file)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=DEADLINE,
                env=_surroundings(),
                cwd=folder,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TemporaryError(
                f"{name} gave no answer within {DEADLINE:.0f} s.", code="ScanFailed"
            ) from error
        except OSError as error:
            raise TemporaryError(f"{name} could not be run: {error}.", code="ScanFailed") from error
    said = done.stderr.decode("utf-8", "replace")[-4000:]
    if done.returncode != 0:
        last = next(
            (line for line in reversed(said.splitlines()) if line.strip()), "it said nothing"
        )
        raise TemporaryError(
            f"{name} failed with code {done.returncode}: {last[:300]}",
            code="ScanFailed",
            evidence=said,
        )
    try:
        return read(json.loads(done.stdout[:_MOST_OUTPUT]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TemporaryError(
            f"{name} answered what cannot be read: {error}.", code="ScanFailed", evidence=said
        ) from error


def _surroundings() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED or name.upper() in _PROXIES or name.startswith(_PASSED_BEGINNINGS)
    }


def _osv(url: str, document: dict[str, Any]) -> list[Finding]:
    until = time.monotonic() + DEADLINE
    server = urlsplit(url).netloc
    try:
        with httpx.Client(
            base_url=url.rstrip("/"), timeout=_CALL, follow_redirects=False, trust_env=True
        ) as client:
            return _ask_osv(client, document, until)
    except httpx.HTTPStatusError as error:
        raise TemporaryError(
            f"The vulnerability server {server} answered {error.response.status_code} for "
            f"{error.request.url.path}.",
            code="ScanFailed",
            evidence=error.response.text[:2000],
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TemporaryError(
            f"The vulnerability server {server} could not be asked: {error or type(error).__name__}.",
            code="ScanFailed",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TemporaryError(
            f"The vulnerability server {server} answered what cannot be read: {error!r}.",
            code="ScanFailed",
        ) from error


def _ask_osv(client: httpx.Client, document: dict[str, Any], until: float) -> list[Finding]:
    listing = listing_of(document)
    asked = [
        (package, query)
        for package in listing.packages
        if (query := findings.osv_query(package, listing.system)) is not None
    ]
    hits = []  # (package, id)
    for begin in range(0, len(asked), _BATCH):
        waiting = asked[begin : begin + _BATCH]
        for _ in range(_MOST_PAGES):
            answer = _post(client, "/v1/querybatch", {"queries": [q for _, q in waiting]}, until)
            results = answer["results"]
            if len(results) != len(waiting):
                raise ValueError(f"{len(results)} results for {len(waiting)} queries")
            more = []
            for (package, query), result in zip(waiting, results, strict=True):
                hits += [(package, str(item["id"])) for item in (result or {}).get("vulns") or []]
                if token := (result or {}).get("next_page_token"):
                    more.append((package, query | {"page_token": token}))
            waiting = more
            if not waiting:
                break
        else:
            raise ValueError(f"more than {_MOST_PAGES} pages for one question")
    records: dict[str, Any] = {}
    found = []
    for package, name in hits:
        if name not in records:
            _in_time(until)
            answer = client.get(f"/v1/vulns/{quote(name, safe='')}")
            answer.raise_for_status()
            records[name] = answer.json()
        finding = findings.from_osv(records[name], package, listing.system)
        if finding is not None:
            found.append(finding)
    return found


def _post(client: httpx.Client, path: str, body: dict[str, Any], until: float) -> Any:
    _in_time(until)
    answer = client.post(path, json=body)
    answer.raise_for_status()
    return answer.json()


def _in_time(until: float) -> None:
    if time.monotonic() > until:
        raise httpx.TimeoutException(f"it took longer than {DEADLINE:.0f} s")

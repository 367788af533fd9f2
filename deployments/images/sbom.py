"""A list of packages as a CycloneDX 1.5 document, and back.

PURE. Written by hand: the document has six kinds of fields, and the library that writes it brings four
more packages along. The tests hold it to the schema's rules.
"""

import uuid
from collections import Counter
from datetime import datetime
from typing import Any

from deployments.images.packages import Listing, Package, System, purl

_SOURCE, _SOURCE_VERSION = "slipway:source", "slipway:source-version"
_MISSING = "slipway:not-listed"


def document(listing: Listing, *, subject: str, kind: str, at: datetime) -> dict[str, Any]:
    """The document. `kind` is "container" or "application"; `subject` names it (a hash, an image).

    The same packages at the same time make the same serial number.
    """
    components = [_component(package, listing.system) for package in listing.packages]
    system = listing.system
    if system.id:
        components.insert(0, _system_component(system))
    _make_unique(components)
    stamp = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    text = "\n".join([subject, stamp, *(item["bom-ref"] for item in components)])
    metadata: dict[str, Any] = {
        "timestamp": stamp,
        "tools": {"components": [{"type": "application", "name": "slipway"}]},
        "component": {"bom-ref": "subject", "type": kind, "name": subject},
    }
    if listing.missing:
        metadata["properties"] = [{"name": _MISSING, "value": text} for text in listing.missing]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, text)}",
        "version": 1,
        "metadata": metadata,
        "components": components,
    }


def listing_of(document: dict[str, Any]) -> Listing:
    """What a document of ours lists."""
    packages, system = [], System()
    for item in document.get("components", []):
        if item["type"] == "operating-system":
            system = System(item["name"], item.get("version", ""), item.get("description", ""))
            continue
        said = {each["name"]: each["value"] for each in item.get("properties", [])}
        packages.append(
            Package(
                kind=item["purl"].removeprefix("pkg:").partition("/")[0],
                name=item["name"],
                version=item["version"],
                license=next((each["license"]["name"] for each in item.get("licenses", [])), ""),
                source=said.get(_SOURCE, ""),
                source_version=said.get(_SOURCE_VERSION, ""),
            )
        )
    missing = tuple(
        item["value"]
        for item in document.get("metadata", {}).get("properties", [])
        if item["name"] == _MISSING
    )
    return Listing(tuple(packages), system, missing)


def _component(package: Package, system: System) -> dict[str, Any]:
    url = purl(package, system)
    found: dict[str, Any] = {
        "bom-ref": url,
        "type": "library",
        "name": package.name,
        "version": package.version,
        "purl": url,
    }
    if package.license:
        # `name` takes any words; `id` only those of SPDX's list
        found["licenses"] = [{"license": {"name": package.license}}]
    if package.source:
        found["properties"] = [
            {"name": _SOURCE, "value": package.source},
            {"name": _SOURCE_VERSION, "value": package.source_version},
        ]
    return found


def _system_component(system: System) -> dict[str, Any]:
    found = {
        "bom-ref": f"system:{system.id}-{system.version}",
        "type": "operating-system",
        "name": system.id,
        "version": system.version,
    }
    if system.name:
        found["description"] = system.name
    return found


def _make_unique(components: list[dict[str, Any]]) -> None:
    """The schema wants each reference once; the same package may be installed in two places."""
    seen: Counter[str] = Counter()
    for item in components:
        reference = item["bom-ref"]
        seen[reference] += 1
        if seen[reference] > 1:
            item["bom-ref"] = f"{reference}#{seen[reference]}"

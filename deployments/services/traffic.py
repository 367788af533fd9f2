"""How a service's requests are split between its versions.

PURE. A version that is not the default has a share in percent; the default takes what is left of 100.
A version gets its share only once a deployment of it has succeeded: until then the default has it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deployments.errors import InvalidInput

MOST_VERSIONS = 6  # of one service, as in Azure


@dataclass(frozen=True, slots=True)
class Share:
    """A version as the split sees it. `percent` of the default is not looked at."""

    name: str
    percent: int
    is_default: bool
    proven: bool


def split(versions: Sequence[Share]) -> dict[str, int]:
    """Percent of the requests by version, 100 together; empty where there is no default."""
    shares = {
        version.name: version.percent if version.proven else 0
        for version in versions
        if not version.is_default
    }
    rest = 100 - sum(shares.values())
    return {version.name: rest for version in versions if version.is_default} | shares


def problems(asked: Mapping[str, object], versions: Sequence[Share]) -> list[InvalidInput]:
    """Why these shares cannot be; each names its version as the field. Empty is good.

    Versions that are not named keep their share. The default may be named: its number counts
    towards 100 like the others', and what is missing to 100 is its own anyway.
    """
    found: list[InvalidInput] = []
    by_name = {version.name: version for version in versions}
    wanted = {version.name: version.percent for version in versions if not version.is_default}
    for name, percent in asked.items():
        version = by_name.get(name)
        if version is None:
            known = ", ".join(by_name) or "none"
            found.append(InvalidInput(f"There is no version {name}; there is {known}.", field=name))
        elif isinstance(percent, bool) or not isinstance(percent, int) or not 0 <= percent <= 100:
            found.append(
                InvalidInput(f"{name} takes a whole number of percent, 0 to 100.", field=name)
            )
        elif percent > 0 and not version.proven and not version.is_default:
            found.append(
                InvalidInput(
                    f"No deployment of {name} has succeeded yet, so it cannot take requests. "
                    "Deploy to it first.",
                    field=name,
                )
            )
        else:
            wanted[name] = percent
    if not found and (total := sum(wanted.values())) > 100:
        raised = max(asked, key=lambda name: wanted.get(name, 0), default="")
        found.append(
            InvalidInput(
                f"The shares come to {total} %; together they can be at most 100.", field=raised
            )
        )
    return found

"""Whether the router's own objects stand as they were made, and when what does not is put right.

PURE. An object that is gone or of which a field that we ask for is otherwise has drifted; how many pods the
router has is its own business. Drift is mended once it was seen twice. Whoever undoes it again and again is
not fought: each time there is a longer wait, and after `MOST` times it is left as it is, with why.

    whole -> seen -> mended -> whole          for `WHOLE_SECONDS`: all is forgotten
                  \\-> again -> wait -> mended ... -> given up
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from deployments.drivers.kubernetes_objects import differences
from deployments.drivers.kubernetes_router import Place

MOST = 5  # times that it is mended, unless it stood whole for a while meanwhile
FIRST_WAIT = 10.0  # seconds after the first mending; twice as long after each further one
WHOLE_SECONDS = 900.0
_OWN = frozenset({"slipway", "kube-controller-manager", "kubelet"})
_SHOWN = 4  # fields of an object that are named


@dataclass(frozen=True, slots=True)
class Drift:
    """One object that does not stand as it was made. `fields` () is one that is gone; `by` is who wrote it
    last, as it said itself, "" where that is not known."""

    kind: str
    name: str
    path: str
    fields: tuple[str, ...] = ()
    by: str = ""

    @property
    def words(self) -> str:
        if not self.fields:
            return f"{self.kind} {self.name} is gone"
        listed = ", ".join(self.fields[:_SHOWN])
        more = f" and {len(self.fields) - _SHOWN} more" if len(self.fields) > _SHOWN else ""
        by = f", last written by {self.by}" if self.by else ""
        return f"{self.kind} {self.name} is changed ({listed}{more}{by})"


class Act(StrEnum):
    NOTHING = "nothing"
    MEND = "mend"
    WAIT = "wait"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class State:
    """Of one cluster's router, between two looks. Times are Unix seconds."""

    seen: frozenset[str] = frozenset()  # paths that had drifted at the last look
    mended: int = 0
    mended_at: float = 0.0
    whole_since: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    act: Act
    reason: str
    state: State


def found(
    places: Sequence[Place],
    standing: Mapping[str, Mapping[str, Any] | None],
    admitted: Mapping[str, frozenset[str]],
) -> tuple[Drift, ...]:
    """What drifted. `standing` has each place's object by its path, None for one that is gone; `admitted`
    are fields by path that the cluster's own rules make otherwise whatever we ask for."""
    drifted = []
    for place in places:
        item = standing.get(place.path)
        kind, name = place.body["kind"], place.body["metadata"]["name"]
        if item is None:
            drifted.append(Drift(kind, name, place.path))
        elif fields := _fields(place.body, item) - admitted.get(place.path, frozenset()):
            drifted.append(Drift(kind, name, place.path, tuple(sorted(fields)), _writer(item)))
    return tuple(drifted)


def decide(state: State, drifted: Sequence[Drift], now: float) -> Verdict:
    """What to do about it, and why."""
    if not drifted:
        since = now if state.whole_since is None else state.whole_since
        if now - since >= WHOLE_SECONDS:
            return Verdict(Act.NOTHING, "", State(whole_since=since))
        return Verdict(Act.NOTHING, "", replace(state, seen=frozenset(), whole_since=since))
    paths = frozenset(item.path for item in drifted)
    words = "; ".join(item.words for item in drifted)
    twice = bool(paths & state.seen)
    state = replace(state, seen=paths, whole_since=None)
    if state.mended >= MOST:
        return Verdict(
            Act.LEAVE,
            f"{words}. The router was put right {state.mended} times and changed again each time; it is "
            "left as it is now. End what changes it, then check again.",
            state,
        )
    if not twice:
        return Verdict(Act.WAIT, f"{words}. It is put right if it stays so.", state)
    if state.mended and now < (due := state.mended_at + _wait(state.mended)):
        return Verdict(
            Act.WAIT,
            f"{words}. It was put right {state.mended} times already; again in {due - now:.0f} s.",
            state,
        )
    done = replace(state, seen=frozenset(), mended=state.mended + 1, mended_at=now)
    return Verdict(Act.MEND, words, done)


def _wait(mended: int) -> float:
    return FIRST_WAIT * 2.0 ** (mended - 1)


def still_other(
    places: Sequence[Place], standing: Mapping[str, Mapping[str, Any] | None]
) -> dict[str, frozenset[str]]:
    """By path, the fields that are otherwise right after they were written: the cluster's own rules made
    them so."""
    return {
        place.path: fields
        for place in places
        if (item := standing.get(place.path)) is not None and (fields := _fields(place.body, item))
    }


def only_addresses(wanted: Mapping[str, Any], item: Mapping[str, Any]) -> bool:
    """Whether a network policy stands as it was asked for but for the addresses in it."""
    if wanted["kind"] != "NetworkPolicy":
        return False
    asked = {"spec": _without_blocks(wanted["spec"])}
    return not any(differences(asked, {"spec": _without_blocks(item["spec"])}))


def _without_blocks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_blocks(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [
            _without_blocks(inner)
            for inner in value
            if not (isinstance(inner, dict) and "ipBlock" in inner)
        ]
    return value


def _fields(wanted: Mapping[str, Any], item: Mapping[str, Any]) -> frozenset[str]:
    asked = {key: value for key, value in wanted.items() if key not in ("kind", "apiVersion")}
    asked.pop("stringData", None)  # what the API server makes of it is a secret: it is there or not
    asked["metadata"] = {
        key: value for key, value in asked["metadata"].items() if key in ("labels", "annotations")
    }
    return frozenset(differences(asked, dict(item)))


def _writer(item: Mapping[str, Any]) -> str:
    """Of those who are not the cluster itself, the one that wrote last."""
    entries = [
        entry
        for entry in item["metadata"].get("managedFields") or ()
        if entry.get("manager") not in _OWN and entry.get("subresource", "") == ""
    ]
    latest = max(entries, key=lambda entry: str(entry.get("time", "")), default=None)
    return str(latest["manager"]) if latest is not None else ""

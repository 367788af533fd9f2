"""A collection is read a page at a time, and of each page only what is kept stays."""

from typing import Any

import pytest

from deployments.kube import api
from deployments.kube.api import Expired, Kube
from deployments.types import KubeSpec


def page(version: str, *names: str, following: str = "") -> dict:
    meta = {"resourceVersion": version, "continue": following}
    return {"metadata": meta, "items": [{"metadata": {"name": name}} for name in names]}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What it answers by the page asked for, "" the first; None is all at once."""
    pages: dict[str, Any] = {"asked": []}

    def answered(self: Kube, method: str, path: str, *, query: dict[str, str]) -> dict:
        asked = query["continue"] if "limit" in query else None
        pages["asked"].append(asked)
        found = pages[asked] if asked is not None else pages["whole"]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(api.Kube, "_json", answered)
    return pages


def name(found: dict) -> str | None:
    return None if found["metadata"]["name"] == "skipped" else found["metadata"]["name"]


def test_each_page_is_cut_down_as_it_comes(server: dict[str, Any]) -> None:
    server |= {"": page("5", "a", "skipped", following="p2"), "p2": page("5", "b")}
    found = Kube(KubeSpec("https://x", "")).items("/things", keep=name)
    assert (found.items, found.version) == (["a", "b"], "5")
    assert server["asked"] == ["", "p2"]


def test_pages_that_became_too_old_count_for_nothing(server: dict[str, Any]) -> None:
    server |= {
        "": page("5", "gone", following="p2"),
        "p2": Expired("too old"),
        "whole": page("9", "a", "skipped", "b"),
    }
    found = Kube(KubeSpec("https://x", "")).items("/things", keep=name)
    assert (found.items, found.version) == (["a", "b"], "9")
    assert server["asked"] == ["", "p2", None]


def test_without_a_choice_all_of_each_is_kept(server: dict[str, Any]) -> None:
    server |= {"": page("5", "a")}
    found = Kube(KubeSpec("https://x", "")).items("/things")
    assert found.items == [{"metadata": {"name": "a"}}]

"""The API server as we ask it, on a real one."""

import base64
from collections.abc import Iterator
from dataclasses import replace

import pytest

from deployments.errors import Conflict, NotFound, PermanentError, Unavailable
from deployments.kube.api import Kube
from deployments.kube.watching import Watched
from tests.kubernetes import cluster
from tests.ports import free_port

pytestmark = pytest.mark.kubernetes


@pytest.fixture(scope="module")
def kube() -> Iterator[Kube]:
    made = Kube(cluster.spec())
    yield made
    made.close()


@pytest.fixture(scope="module")
def maps(kube: Kube) -> Iterator[str]:
    with cluster.namespace(kube, "core") as name:
        yield f"/api/v1/namespaces/{name}/configmaps"


def config_map(name: str, **data: str) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"made": "here"}},
        "data": data,
    }


def test_what_is_applied_leaves_others_fields_alone(kube: Kube, maps: str) -> None:
    kube.apply(f"{maps}/a", config_map("a", ours="1", old="1"))
    kube.patch(f"{maps}/a", {"data": {"theirs": "1"}, "metadata": {"annotations": {"x": "y"}}})
    # that patch was ours as well, by the same name, and yet no part of what is applied
    found = kube.apply(f"{maps}/a", config_map("a", ours="2"))
    assert found["data"] == {"ours": "2", "theirs": "1"}
    assert found["metadata"]["annotations"] == {"x": "y"}


def test_a_server_without_server_side_apply_is_given_the_same(
    kube: Kube, maps: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = kube._ask

    def older(method: str, path: str, **more: object) -> object:
        if "apply" in str(more.get("kind")):
            raise PermanentError("what is that?", code="UnsupportedMediaType")
        return ask(method, path, **more)

    monkeypatch.setattr(kube, "_ask", older)
    assert kube.apply(f"{maps}/older", config_map("older", a="1"))["data"] == {"a": "1"}
    assert kube.apply(f"{maps}/older", config_map("older", a="2"))["data"] == {"a": "2"}


def test_errors_say_what_happened(kube: Kube, maps: str) -> None:
    with pytest.raises(NotFound):
        kube.get(f"{maps}/none")
    kube.create(maps, config_map("b"))
    with pytest.raises(Conflict):
        kube.create(maps, config_map("b"))
    with pytest.raises(PermanentError, match="refuses it") as caught:
        kube.create(maps, config_map("Not A Name"))
    assert caught.value.code == "Invalid"
    kube.delete(f"{maps}/b")
    kube.delete(f"{maps}/b")
    with pytest.raises(PermanentError, match="does not know our credentials") as caught:
        Kube(replace(cluster.spec(), token="wrong")).get(maps)
    assert caught.value.code == "KubernetesUnaccessible"
    nowhere = replace(cluster.spec(), server=f"https://127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable, match="cannot be reached"):
        Kube(nowhere).get(maps)


def test_a_refusal_names_verb_resource_and_namespace(kube: Kube, maps: str) -> None:
    namespace = maps.split("/")[4]
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    kube.create(accounts, {"metadata": {"name": "weak"}})
    secrets = f"/api/v1/namespaces/{namespace}/secrets"

    def token() -> str:
        for item in kube.items(secrets).items:
            notes = item["metadata"].get("annotations", {})
            if notes.get("kubernetes.io/service-account.name") == "weak":
                return base64.b64decode(item.get("data", {}).get("token", "")).decode()
        return ""

    kube.apply(
        f"{secrets}/weak-token",
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/service-account-token",
            "metadata": {
                "name": "weak-token",
                "annotations": {"kubernetes.io/service-account.name": "weak"},
            },
        },
    )
    weak = Kube(replace(cluster.spec(), token=cluster.until(token), cert="", key=""))
    with pytest.raises(PermanentError, match=f"list secrets in namespace {namespace}") as caught:
        weak.items(secrets)
    assert caught.value.code == "KubernetesUnaccessible"


def test_a_list_comes_in_pages_and_a_watch_goes_on_from_it(
    kube: Kube, maps: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        kube.apply(f"{maps}/p{number}", config_map(f"p{number}"))
    monkeypatch.setattr("deployments.kube.api._PAGE", 2)
    listing = kube.items(maps, labels="made=here")
    assert {f"p{number}" for number in range(5)} <= {
        item["metadata"]["name"] for item in listing.items
    }
    kube.delete(f"{maps}/p0")
    event = next(kube.watch(maps, listing.version, 5, labels="made=here"))
    assert (event.kind, event.object["metadata"]["name"]) == ("DELETED", "p0")


def test_what_is_watched_is_there_at_once_and_moves(kube: Kube, maps: str) -> None:
    kube.apply(f"{maps}/w", config_map("w", a="1"))
    watched = Watched(kube, maps, fields="metadata.name=w")
    try:
        (seen,) = watched.objects().values()
        before = watched.moved()
        assert watched.objects() is watched.objects()
        kube.apply(f"{maps}/w", config_map("w", a="2"))
        cluster.until(lambda: watched.moved() != before, 5)
        (now,) = watched.objects().values()
        assert (seen["data"], now["data"]) == ({"a": "1"}, {"a": "2"})
        kube.delete(f"{maps}/w")
        cluster.until(lambda: not watched.objects(), 5)
    finally:
        watched.close()


def test_what_may_not_be_seen_is_never_taken_for_nothing(kube: Kube, maps: str) -> None:
    nowhere = Kube(replace(cluster.spec(), server=f"https://127.0.0.1:{free_port()}"))
    watched = Watched(nowhere, maps)
    with pytest.raises(Unavailable):
        watched.objects(wait=1.0)
    watched.close()


def test_a_server_says_what_it_is(kube: Kube) -> None:
    major, minor = kube.version()
    assert (major, minor) >= (1, 20)
    assert kube.has("apps/v1", "deployments")
    assert not kube.has("slipway.dev/v1", "ships")
    assert not kube.has("v1", "deployments")

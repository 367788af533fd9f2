import copy
from dataclasses import replace

from deployments.drivers import kubernetes_router as shapes
from deployments.drivers import kubernetes_router_drift as drift
from deployments.drivers.kubernetes_router_drift import Act, Drift, State
from deployments.types import KubeSettings, Purpose

SETTINGS = KubeSettings("models", router_image="registry.example.com/slipway/router:1")
PLACES = shapes.objects(SETTINGS, "c", "t", api_addresses=("10.0.0.1",))
GONE = Drift("Service", shapes.NAME, "/api/v1/namespaces/models/services/slipway-router")


def standing() -> dict[str, shapes.Object | None]:
    """As an API server has them: with defaults, and without what it keeps to itself."""
    found = {}
    for place in PLACES:
        body = copy.deepcopy(place.body)
        body.pop("stringData", None)
        body["metadata"]["resourceVersion"] = "12"
        found[place.path] = body
    return found


def of(kind: str) -> shapes.Place:
    return next(place for place in PLACES if place.body["kind"] == kind)


def test_what_stands_as_it_was_made_has_not_drifted() -> None:
    assert drift.found(PLACES, standing(), {}) == ()


def test_what_is_gone_and_what_is_changed_is_named() -> None:
    there = standing()
    there[of("Deployment").path] = None
    service = there[of("Service").path]
    service["spec"]["ports"][0]["targetPort"] = 9
    service["metadata"]["managedFields"] = [
        {"manager": "slipway", "time": "2026-01-01T00:00:05Z"},
        {"manager": "kubectl-edit", "time": "2026-01-01T00:00:04Z"},
        {"manager": "helm", "time": "2026-01-01T00:00:03Z"},
    ]
    words = [item.words for item in drift.found(PLACES, there, {})]
    assert words == [
        "Service slipway-router is changed (spec.ports[http].targetPort, last written by kubectl-edit)",
        "Deployment slipway-router is gone",
    ]


def test_the_count_of_pods_and_what_others_added_are_no_drift() -> None:
    there = standing()
    deployment = there[of("Deployment").path]
    deployment["spec"]["replicas"] = 7
    deployment["spec"]["template"]["metadata"]["annotations"]["restartedAt"] = "now"
    there[of("Service").path]["spec"]["clusterIP"] = "10.0.0.9"
    assert drift.found(PLACES, there, {}) == ()


def test_what_the_clusters_own_rules_make_otherwise_is_no_drift() -> None:
    there = standing()
    path = of("Deployment").path
    there[path]["spec"]["template"]["spec"]["containers"][0]["image"] = (
        "mirror.example.com/router:1"
    )
    admitted = drift.still_other(PLACES, there)
    assert list(admitted) == [path]
    assert drift.found(PLACES, there, {}) != ()
    assert drift.found(PLACES, there, admitted) == ()


def test_a_policy_that_differs_by_nodes_addresses_alone_is_told_from_one_that_is_changed() -> None:
    place = of("NetworkPolicy")
    there = standing()[place.path]
    there["spec"]["ingress"][2]["from"][0]["ipBlock"]["cidr"] = "10.0.0.7/32"
    assert drift.only_addresses(place.body, there)
    there["spec"]["ingress"][2]["from"].append({"ipBlock": {"cidr": "10.0.0.8/32"}})
    assert drift.only_addresses(place.body, there)
    there["spec"]["ingress"][0]["ports"].pop()
    assert not drift.only_addresses(place.body, there)
    assert not drift.only_addresses(of("Service").body, standing()[of("Service").path])


def test_nodes_that_come_and_go_and_new_tokens_are_no_other_request() -> None:
    stamps = {place.path: shapes.stamp(place.body) for place in PLACES}
    later = shapes.objects(SETTINGS, "c", "other", api_addresses=("10.0.0.1", "10.0.0.2"))
    assert {place.path: shapes.stamp(place.body) for place in later}.keys() == stamps.keys()
    for place in later:
        noted = place.body["metadata"]["annotations"]["slipway.dev/spec-sha256"]
        was = next(item for item in PLACES if item.path == place.path)
        assert noted == was.body["metadata"]["annotations"]["slipway.dev/spec-sha256"]
    moved = shapes.objects(replace(SETTINGS, purpose=Purpose.FAST_PROD), "c", "t")
    deployment = next(place for place in moved if place.body["kind"] == "Deployment")
    assert shapes.stamp(deployment.body) != stamps[deployment.path]


def test_a_token_that_is_another_one_starts_its_pods_anew() -> None:
    def notes(token: str) -> object:
        for place in shapes.objects(SETTINGS, "c", token):
            if place.body["kind"] == "Deployment":
                return place.body["spec"]["template"]["metadata"]["annotations"]
        return None

    assert notes("one") == notes("one")
    assert notes("one") != notes("two")


def test_drift_is_mended_once_it_was_seen_twice() -> None:
    first = drift.decide(State(), [GONE], 100.0)
    assert first.act is Act.WAIT
    assert "Service slipway-router is gone" in first.reason
    second = drift.decide(first.state, [GONE], 105.0)
    assert second.act is Act.MEND
    assert second.state.mended == 1
    # what went away by itself in between counts for nothing
    between = drift.decide(first.state, [], 105.0)
    assert drift.decide(between.state, [GONE], 110.0).act is Act.WAIT


def test_who_undoes_it_again_and_again_is_not_fought() -> None:
    state, now, mended = State(), 0.0, []
    for _ in range(1000):
        verdict = drift.decide(state, [GONE], now)
        if verdict.act is Act.MEND:
            mended.append(now)
        state, now = verdict.state, now + 5.0
    assert len(mended) == drift.MOST
    waits = [after - before for before, after in zip(mended, mended[1:], strict=False)]
    assert waits == sorted(waits)
    assert waits[-1] >= 80.0
    assert verdict.act is Act.LEAVE
    assert "changed again each time; it is left as it is" in verdict.reason


def test_a_while_without_drift_makes_up_for_what_was() -> None:
    state = State(mended=drift.MOST, mended_at=0.0)
    state = drift.decide(state, [], 1000.0).state
    short = drift.decide(state, [], 1000.0 + drift.WHOLE_SECONDS - 1).state
    assert drift.decide(short, [GONE], 2000.0).act is Act.LEAVE
    long = drift.decide(state, [], 1000.0 + drift.WHOLE_SECONDS).state
    assert drift.decide(long, [GONE], 2000.0).act is Act.WAIT
    assert long.mended == 0

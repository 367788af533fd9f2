"""What the loop takes in of what the cluster shows."""

from deployments.types import Observation, ObservedService, Phase
from router.haproxy.pool import Key
from router.versions import Versions
from tests.router.fakes import replica, service


def shown(*names: str) -> Observation:
    return Observation(
        1.0,
        tuple(
            ObservedService(service(name), (), (replica(f"{name}-1", name, "127.0.0.1:1"),))
            for name in names
        ),
    )


def test_a_service_that_is_removed_just_after_it_was_scaled_is_gone():
    versions = Versions({}, {})
    versions.take_in(shown("demo"))
    versions.look_again("demo")
    [gone] = versions.take_in(shown())
    assert gone.service.name == "demo"
    assert versions.wanted == {}


def test_a_service_that_was_scaled_is_taken_in_anew_though_it_looks_the_same():
    versions, seen = Versions({}, {}), shown("demo")
    versions.take_in(seen)
    version = versions.by_key[Key("demo", "default")]
    version.decided = True
    versions.take_in(seen)
    assert version.decided
    versions.look_again("demo")
    versions.take_in(seen)
    assert not version.decided


def test_a_replica_whose_node_is_silent_is_asked_on_but_is_no_capacity_to_scale_by():
    versions = Versions({}, {})
    seen = (
        replica("demo-1", "demo", "127.0.0.1:1"),
        replica("demo-2", "demo", "127.0.0.1:2", Phase.LOADING, unheard=True),
        replica("demo-3", "demo", "127.0.0.1:3", Phase.LOADING),
    )
    versions.take_in(Observation(1.0, (ObservedService(service("demo"), (), seen),)))
    version = versions.by_key[Key("demo", "default")]
    assert [item.replica for item in version.wanted] == ["demo-1", "demo-2"]
    assert version.standing.ready == 1

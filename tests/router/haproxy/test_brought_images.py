"""A version that scores somewhere else has a rule of its own, and nobody else has any."""

from dataclasses import replace

from deployments.types import ContainerSpec
from router.haproxy import pool, render
from router.haproxy.pool import Key, Need
from router.haproxy.render import BackendShape, RouterConfig
from tests.router.fakes import service

A, B = Key("a", "default"), Key("b", "default")
PLAIN = Need(500, 4)
OTHER = Need(500, 4, "/v1/predict")


def config(*shapes: BackendShape) -> RouterConfig:
    return RouterConfig("127.0.0.1", 8080, "/run/stats.sock", "/run/body.sock", shapes)


def test_only_the_backend_with_another_path_has_a_rule() -> None:
    plain = render.render(config(BackendShape(), BackendShape()))
    text = render.render(config(BackendShape(), BackendShape(path="/v1/predict")))
    rule = "    http-request set-path /v1/predict if { path /score }"
    assert text.count(rule) == 1
    assert text.index("backend be_0002 ") < text.index(rule)
    assert "/v1/predict" not in plain
    assert [line for line in text.splitlines() if line not in plain.splitlines()][1:] == [rule]


def test_a_version_asks_for_its_containers_path() -> None:
    spec = service("a")
    revision = replace(spec.versions[0].revision, container=ContainerSpec("x", 80, "/v1/predict"))
    brought = replace(spec, versions=(replace(spec.versions[0], revision=revision),))
    assert pool.needs([spec], {})[Key("a", spec.versions[0].name)].path == "/score"
    assert pool.needs([brought], {})[Key("a", spec.versions[0].name)].path == "/v1/predict"


def test_a_backend_takes_the_path_and_gives_it_up_again() -> None:
    shapes = (BackendShape(), BackendShape())
    first = pool.assign({}, shapes, {A: PLAIN, B: OTHER}, (), 4)
    path_of = {key: first.shapes[int(name[3:]) - 1].path for key, name in first.backends.items()}
    assert path_of == {A: "/score", B: "/v1/predict"}
    assert first.why == ("b/default scores at /v1/predict",)
    same = pool.assign(first.backends, first.shapes, {A: PLAIN, B: OTHER}, (), 4)
    assert same.why == ()
    plain = pool.assign(first.backends, first.shapes, {A: PLAIN, B: PLAIN}, (), 4)
    assert plain.why == ("b/default scores at /score",)
    assert {shape.path for shape in plain.shapes} == {"/score"}


def test_a_backend_that_has_the_path_already_is_taken_first() -> None:
    shapes = (BackendShape(), BackendShape(path="/v1/predict"))
    found = pool.assign({}, shapes, {B: OTHER}, (), 4)
    assert (found.backends[B], found.why) == ("be_0002", ())

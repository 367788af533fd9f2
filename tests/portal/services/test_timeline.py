"""How a deployment's steps are laid out, from plain values and a given time."""

from datetime import timedelta

from deployments.pipeline.timeline import STEPS
from deployments.services.models import Deployment, DeploymentStep
from portal.timeline import lay_out, total_seconds
from tests.portal.services.conftest import NOW


def _step(name: str, state: str, start: float, end: float | None = None) -> DeploymentStep:
    return DeploymentStep(
        name=name,
        state=state,
        started_at=NOW + timedelta(seconds=start),
        ended_at=None if end is None else NOW + timedelta(seconds=end),
    )


def _by_name(views: list) -> dict:
    return {view.name: view for view in views}


def test_every_step_of_the_road_is_shown_in_order_before_it_begins() -> None:
    views = lay_out(Deployment(state="queued", created_at=NOW), [], {}, NOW)
    assert [view.name for view in views] == list(STEPS)
    assert {view.state for view in views} == {"waiting"}


def test_a_running_step_shows_how_far_it_is_towards_its_usual_time() -> None:
    deployment = Deployment(state="rolling", created_at=NOW)
    steps = [_step("loading", "running", 0)]
    view = _by_name(lay_out(deployment, steps, {"loading": 4.0}, NOW + timedelta(seconds=3)))
    assert view["loading"].percent == 75
    assert view["loading"].slow is False


def test_a_running_step_never_reaches_100_percent_and_is_slow_past_twice_its_usual_time() -> None:
    deployment = Deployment(state="rolling", created_at=NOW)
    steps = [_step("loading", "running", 0)]
    just = _by_name(lay_out(deployment, steps, {"loading": 10.0}, NOW + timedelta(seconds=20)))
    over = _by_name(lay_out(deployment, steps, {"loading": 10.0}, NOW + timedelta(seconds=20.1)))
    assert (just["loading"].percent, just["loading"].slow) == (99, False)
    assert over["loading"].slow is True


def test_a_step_without_history_has_no_percentage() -> None:
    steps = [_step("loading", "running", 0)]
    views = lay_out(Deployment(state="rolling", created_at=NOW), steps, {}, NOW)
    assert _by_name(views)["loading"].percent is None


def test_steps_after_a_failure_were_not_reached_and_those_of_a_success_were_skipped() -> None:
    steps = [_step("zipping", "failed", 0, 1)]
    failed = lay_out(Deployment(state="failed", created_at=NOW, finished_at=NOW), steps, {}, NOW)
    done = lay_out(Deployment(state="succeeded", created_at=NOW, finished_at=NOW), [], {}, NOW)
    assert _by_name(failed)["healthy"].state == "never"
    assert _by_name(done)["pulling"].state == "skipped"


def test_a_step_nobody_listed_is_shown_where_it_stands() -> None:
    steps = [_step("pushing", "done", 0, 2)]
    views = lay_out(Deployment(state="running", created_at=NOW), steps, {}, NOW)
    assert views[-1].name == "pushing"
    assert views[-1].seconds == 2.0


def test_a_deployment_takes_until_its_end_or_until_now() -> None:
    running = Deployment(created_at=NOW)
    ended = Deployment(created_at=NOW, finished_at=NOW + timedelta(seconds=5))
    later = NOW + timedelta(seconds=60)
    assert (total_seconds(running, later), total_seconds(ended, later)) == (60.0, 5.0)

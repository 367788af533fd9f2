"""How a deployment's steps are shown: which are done, how long each took, and how long it usually takes.

Decides from plain values; reads no rows and no clock. What is usual is `deployments.pipeline.timeline`'s.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from deployments.pipeline.timeline import STEPS
from deployments.services.models import Deployment, DeploymentState, DeploymentStep

# What each step does, in a person's words.
_LABELS: dict[str, str] = {
    "queued": "Waiting for a worker",
    "zipping": "Packing the project folder",
    "hashing": "Hashing the environment",
    "image": "Finding or building the environment",
    "applying": "Telling the cluster",
    "scheduling": "Finding room",
    "pulling": "Bringing files to the replicas",
    "starting": "Starting the scoring server",
    "loading": "Loading the model",
    "healthy": "Answering",
}


@dataclass(frozen=True, slots=True)
class StepView:
    """One step as drawn. `state` is waiting, running, done, skipped or failed.

    `seconds` is how long it took, or has taken so far; None where it has not begun or began and ended
    unseen. `percent` is how far a running step is towards its usual duration, None when unknown.
    """

    name: str
    label: str
    state: str
    detail: str = ""
    seconds: float | None = None
    usual: float | None = None
    percent: int | None = None

    @property
    def slow(self) -> bool:
        """Much longer than usual: worth a look, not yet wrong."""
        if self.state != "running" or self.seconds is None or self.usual is None:
            return False
        return self.seconds > max(2 * self.usual, self.usual + 5)


def lay_out(
    deployment: Deployment,
    steps: Iterable[DeploymentStep],
    usual: Mapping[str, float],
    now: datetime,
) -> list[StepView]:
    """Every step of the road in order; a step the deployment made up itself comes where it stands."""
    rows = {step.name: step for step in steps}
    order = [*STEPS, *(name for name in rows if name not in STEPS)]
    stopped = deployment.state in (DeploymentState.FAILED, DeploymentState.CANCELLED)
    views: list[StepView] = []
    for name in order:
        label = _LABELS.get(name, name.capitalize())
        row = rows.get(name)
        if row is None:
            state = "waiting"
            if stopped:
                state = "never"
            elif deployment.state == DeploymentState.SUCCEEDED:
                state = "skipped"
            views.append(StepView(name, label, state, usual=usual.get(name)))
            continue
        end = row.ended_at or (deployment.finished_at if deployment.finished else now)
        seconds = max(0.0, (end - row.started_at).total_seconds()) if end else None
        expected = usual.get(name)
        percent = None
        if row.state == DeploymentStep.State.RUNNING and seconds is not None and expected:
            percent = min(99, int(100 * seconds / expected))
        views.append(
            StepView(name, label, row.state, row.detail, seconds, expected, percent),
        )
    return views


def total_seconds(deployment: Deployment, now: datetime) -> float:
    """From being asked for to its end, or to now."""
    return max(0.0, ((deployment.finished_at or now) - deployment.created_at).total_seconds())

"""What a replica's shim is told to start: the scoring server's command line and environment.

`azmlinfsrv` listens on every address; a replica must be reached through the router alone. So gunicorn
is run directly, on a unix socket that its shim gives it, with the variables `azmlinfsrv` would have set.
A request at a time in each worker, and no more workers than requests the router sends. Decides; writes
nothing.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deployments.types import ContainerSpec, RevisionSpec

LOG_BYTES = 10_000_000
LOG_SEGMENTS = 3
_CONFIGURATION = Path(__file__).with_name("gunicorn_conf.py")
_FRONT = Path(__file__).with_name("front.py")
_APPLICATION = "azureml_inference_server_http.server.entry:app"
_SLACK_SECONDS = 30
_PORT = "5001"  # what scripts are told; nobody listens there
INSIDE = Path("/slipway")  # where a container has what it is given
# Of a container that shares no folder with the router; `run.json`'s "gate"["tcp"].
TCP_PORT, TCP_HEALTH_PORT = 5001, 5002
TCP = {"listen": f"0.0.0.0:{TCP_PORT}", "health": f"0.0.0.0:{TCP_HEALTH_PORT}"}
FAR_PORT = 5001  # of a container on another machine: requests, over TLS
_FAR_HEALTH_PORT = 5002  # not published
FAR_PAIR, FAR_AUTHORITY = "replica.pem", "router.pem"  # beside its `run.json`
_KEPT = ("TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")


def build(
    revision: RevisionSpec,
    *,
    replica: str,
    run: int,
    silence: float,
    work: Path,
    staged: Path,
    cgroups: list[dict[str, Any]],
    log_bytes: int = LOG_BYTES,
    outer: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The content of `run.json`. `silence` is the seconds for which a replica may give no sign of life,
    `outer` the agent's own environment (a few names pass through)."""
    variables = dict(revision.environment.variables)
    venv = Path(revision.environment.location)
    environment = {
        **{name: value for name, value in (outer or os.environ).items() if name in _KEPT},
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        **variables,
        "PATH": f"{venv}/bin:/usr/local/bin:/usr/bin:/bin",
        "VIRTUAL_ENV": str(venv),
        "HOME": str(work / "home"),
        "TMPDIR": str(work / "tmp"),
        **_told(revision, replica, work / "app", model_folder(revision, staged)),
        "SLIPWAY_REPLICA_FOLDER": str(work.parent),
    }
    return {
        "run": run,
        "command": _server(str(venv / "bin" / "python"), str(_CONFIGURATION), revision),
        "cwd": str(work / "app"),
        "environment": environment,
        "log_bytes": log_bytes,
        "log_segments": LOG_SEGMENTS,
        "cgroups": cgroups,
        "gate": _gate(revision, silence),
    }


def build_inside(
    revision: RevisionSpec,
    *,
    replica: str,
    run: int,
    silence: float,
    tcp: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The content of a container's `run.json`: the same server, in the folders that it has mounted.

    The image's own environment stands below what is told here. With `tcp` its gate listens there, and no
    other replica is near enough to take over a connection. `replica` may be "" where the container has its
    name as host name (a pod).
    """
    staged = INSIDE / "staged"
    environment = {
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",  # the project folder is read-only
        **revision.environment.variables,
        "HOME": "/tmp/home",  # noqa: S108  a file system of the container's own, in memory
        "TMPDIR": "/tmp/tmp",  # noqa: S108
        **_told(revision, replica, staged / "app", model_folder(revision, staged)),
    }
    if not replica:
        del environment["HOSTNAME"]
    doors = {"folder": str(INSIDE / "doors"), "name": f"{replica}.sock"}
    return {
        "run": run,
        "command": _server("python", str(INSIDE / "runtime" / _CONFIGURATION.name), revision),
        "cwd": str(staged / "app"),
        "environment": environment,
        "gate": {
            **_gate(revision, silence),
            **({"tcp": dict(tcp)} if tcp else {"doors": doors}),
        },
    }


def build_front_inside(
    revision: RevisionSpec,
    container: ContainerSpec,
    *,
    silence: float,
    tcp: Mapping[str, str],
) -> dict[str, Any]:
    """The content of `run.json` for a container of ours that stands before a person's own image in the same
    pod, where they share the network (`front_pod.py`)."""
    paths = (container.scoring_path, container.liveness_path, container.readiness_path)
    front = str(INSIDE / "runtime" / "front_pod.py")
    return {
        "run": 1,
        "command": ["python", "-I", "-S", front, "127.0.0.1", str(container.port), *paths],
        "cwd": "/",
        "environment": {
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "HOME": "/tmp/home",  # noqa: S108  a folder of the container's own
            "TMPDIR": "/tmp/tmp",  # noqa: S108
            "WORKER_COUNT": str(revision.concurrency),
        },
        "gate": {**_front_gate(revision, silence), "tcp": dict(tcp)},
    }


def build_far(revision: RevisionSpec, *, replica: str, run: int, silence: float) -> dict[str, Any]:
    """The same for a container of an Engine on another machine, where nobody is served who does not show
    the key that belongs to `FAR_AUTHORITY`. How many requests are inside is held before it (`front`)."""
    told = build_inside(revision, replica=replica, run=run, silence=silence)
    keys = INSIDE / "told"
    told["command"][-1:-1] = [
        "--certfile", str(keys / FAR_PAIR), "--keyfile", str(keys / FAR_PAIR),
        "--ca-certs", str(keys / FAR_AUTHORITY), "--cert-reqs", "2", "--do-handshake-on-connect",
    ]  # fmt: skip
    told["gate"] = {
        **_gate(revision, silence),
        "refuse": False,
        "tcp": {"listen": f"0.0.0.0:{FAR_PORT}", "health": f"0.0.0.0:{_FAR_HEALTH_PORT}"},
    }
    return told


def build_front(
    revision: RevisionSpec,
    container: ContainerSpec | None,
    *,
    run: int,
    silence: float,
    folder: Path,
    target: tuple[str, int],
) -> dict[str, Any]:
    """The content of `run.json` for what stands before a person's own image, or before a container of ours
    on another machine (`container` None: over TLS), at `target`; `folder` is where its sockets are to be,
    and its keys."""
    host, port = target
    if container is None:
        paths = ("/score", "/", "/", str(folder))
    else:
        paths = (container.scoring_path, container.liveness_path, container.readiness_path, "")
    return {
        "run": run,
        "command": [sys.executable, "-I", "-S", str(_FRONT), host, str(port), *paths],
        "cwd": "/",
        "environment": {
            "LANG": "C.UTF-8",
            "PATH": "/usr/bin:/bin",
            "PYTHONUNBUFFERED": "1",
            "WORKER_COUNT": str(revision.concurrency),
            "SLIPWAY_REPLICA_FOLDER": str(folder),
        },
        "log_bytes": LOG_BYTES,
        "log_segments": LOG_SEGMENTS,
        "cgroups": [],
        "gate": _front_gate(revision, silence),
    }


def _workers(revision: RevisionSpec) -> int:
    wanted = _whole(revision.environment.variables.get("WORKER_COUNT"), revision.concurrency)
    return min(wanted, revision.concurrency)


def _told(revision: RevisionSpec, replica: str, app: Path, model: Path) -> dict[str, str]:
    """What scripts and the scoring server go by, as `azmlinfsrv` would have set it."""
    return {
        "AML_APP_ROOT": str(app),
        "AZUREML_ENTRY_SCRIPT": revision.entry_script,
        "AZUREML_MODEL_DIR": str(model),
        "AML_APP_INSIGHTS_ENABLED": "false",
        "SCORING_TIMEOUT_MS": str(revision.scoring_timeout_ms),
        "SERVICE_NAME": revision.service,
        "SERVICE_VERSION": str(revision.number),
        "SERVICE_PATH_PREFIX": f"api/v1/service/{revision.service}",
        "WORKER_COUNT": str(_workers(revision)),
        "SERVER_PORT": _PORT,
        "HEALTH_PORT": _PORT,
        "HOSTNAME": replica,
    }


def _server(python: str, configuration: str, revision: RevisionSpec) -> list[str]:
    timeout = _worker_timeout(revision, revision.environment.variables)
    return [
        python, "-m", "gunicorn", "-c", configuration, "-w", str(_workers(revision)),
        "--worker-class", "sync", "--threads", "1", "--timeout", str(timeout),
        "--access-logfile", "-", "--error-logfile", "-", _APPLICATION,
    ]  # fmt: skip


def _gate(revision: RevisionSpec, silence: float) -> dict[str, Any]:
    workers = _workers(revision)
    return {
        "workers": workers,
        # with fewer workers than requests, some are meant to wait in the replica
        "refuse": workers == revision.concurrency,
        "wait": revision.max_request_wait_ms / 1000,
        "hold": 0.8 * revision.scoring_timeout_ms / 1000,
        "silence": silence,
    }


def _front_gate(revision: RevisionSpec, silence: float) -> dict[str, Any]:
    return {**_gate(revision, silence), "workers": revision.concurrency, "refuse": True}


def model_folder(revision: RevisionSpec, staged: Path) -> Path:
    """AZUREML_MODEL_DIR: one model's own folder; with several the root of `<name>/<version>/`."""
    models = staged / "models"
    if len(revision.models) == 1:
        (model,) = revision.models
        return models / model.name / str(model.version)
    return models


def _worker_timeout(revision: RevisionSpec, variables: Mapping[str, str]) -> int:
    """Gunicorn kills a worker that is silent for longer, and one is silent in init() and in run()."""
    least = max(revision.start_timeout_seconds, revision.scoring_timeout_ms // 1000)
    return _whole(variables.get("WORKER_TIMEOUT"), max(300, least + _SLACK_SECONDS))


def _whole(text: str | None, default: int) -> int:
    """A whole number above zero from a variable that a person wrote."""
    return int(text) if text is not None and text.isdecimal() and int(text) > 0 else default

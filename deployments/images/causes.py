"""Why an image could not be pulled, built or pushed, in plain words.

PURE: what the Engine, a registry or the builder's script said in, a `Failure` out. What pip and uv say is
`deployments.environments.causes`'s.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from deployments.environments import causes as installers
from deployments.environments.causes import FAILED_CODE, UNREACHABLE_CODE
from deployments.images import builder_script

NOT_FOUND, DENIED, REGISTRY_AWAY = "BaseImageNotFound", "RegistryDenied", "RegistryUnreachable"
DISK_FULL, STEP_FAILED, TIMED_OUT = "DiskFull", "DockerStepFailed", "BuildTimedOut"
CANCELLED, ENGINE_AWAY = "BuildCancelled", "EngineUnreachable"
NO_REGISTRY = "NoWorkspaceRegistry"
# Codes of what may pass by itself.
TEMPORARY = frozenset({REGISTRY_AWAY, UNREACHABLE_CODE, ENGINE_AWAY})

_DISK = re.compile(r"no space left on device|disk quota exceeded|ENOSPC|os error 28\b", re.I)
_ABSENT = re.compile(
    r"manifest unknown|not found: manifest|manifest for .* not found|name unknown|"
    r"repository .* not found|no such image|no matching manifest|invalid reference format",
    re.I,
)
_REFUSED = re.compile(
    r"no basic auth credentials|unauthorized|authentication required|access (?:to the resource is )?denied|"
    r"pull access denied|denied:|forbidden|insufficient_scope|incorrect username or password",
    re.I,
)
_AWAY = re.compile(
    r"connection refused|no such host|i/o timeout|no route to host|network is unreachable|"
    r"connection reset|TLS handshake timeout|context deadline exceeded|temporary failure|"
    r"Client\.Timeout|server misbehaving|\bEOF\b|50[0234] ",
    re.I,
)
_PLAIN = re.compile(r"server gave HTTP response to HTTPS client", re.I)
_CERTIFICATE = re.compile(r"x509:|certificate (?:signed by|is not|has expired)", re.I)
_STEP = re.compile(r"^Step (\d+)/\d+ : (.*)$")
_EXIT = re.compile(r"returned a non-zero code: (\d+)")
_NO_CONTEXT = re.compile(r"(?:COPY|ADD) failed|forbidden path outside the build context", re.I)
_INSTEAD = "Check its name and the index."


@dataclass(frozen=True, slots=True)
class Failure:
    """`code` is one of the above or of `environments.causes`."""

    code: str
    message: str

    @property
    def temporary(self) -> bool:
        """Whether the same build may succeed later without a change."""
        return self.code in TEMPORARY


def of_pull(said: str, image: str, host: str) -> Failure:
    """Why an image could not be pulled. `host` is its registry."""
    if _DISK.search(said):
        return disk_full()
    if _PLAIN.search(said) or _CERTIFICATE.search(said):
        return Failure(REGISTRY_AWAY, _tls(host, said))
    if "pull access denied" in said:
        # registries say the same of what is not there and of what may not be seen
        return Failure(
            NOT_FOUND,
            f"The image {image} is not at {host}, or {host} does not show it to us. Check its name; if it is "
            f"private, add {host} with a user and a password under Registries.",
        )
    if _ABSENT.search(said):
        return Failure(
            NOT_FOUND,
            f"There is no image {image}: {host} does not have it. Check its name and tag in the environment.",
        )
    if _REFUSED.search(said):
        return Failure(
            DENIED,
            f"{host} refused to give {image}: {_short(said)}. Add {host} with a user and a password that may "
            "read it under Registries, or correct them there.",
        )
    if _AWAY.search(said):
        return Failure(
            REGISTRY_AWAY,
            f"The registry {host} of {image} could not be reached from the Engine: {_short(said)}. Check "
            "that it runs and that the Engine's network reaches it.",
        )
    return Failure(FAILED_CODE, f"The image {image} could not be pulled: {_short(said)}.")


def of_push(said: str, name: str, host: str) -> Failure:
    """Why the image could not be pushed to the workspace's registry."""
    if "no space" in said.lower() or "quota" in said.lower():
        return Failure(
            DISK_FULL,
            f"The registry {host} or the Engine has no room left for the image: {_short(said)}. Free some "
            "and deploy again.",
        )
    if _PLAIN.search(said) or _CERTIFICATE.search(said):
        return Failure(REGISTRY_AWAY, _tls(host, said))
    if _REFUSED.search(said):
        return Failure(
            DENIED,
            f"The registry {host} refused the push to {name}: {_short(said)}. The user under Registries must "
            "be allowed to write there, and its password must be right.",
        )
    if _AWAY.search(said):
        return Failure(
            REGISTRY_AWAY,
            f"The image was built, but the registry {host} could not be reached from the Engine: "
            f"{_short(said)}. Check that it runs; the next try pushes what is built.",
        )
    return Failure(FAILED_CODE, f"The image could not be pushed to {name}: {_short(said)}.")


def of_steps(said: str, lines: Sequence[str]) -> Failure:
    """Why the Engine's build ended, which ran the docker steps."""
    if _DISK.search(said) or any(_DISK.search(line) for line in lines[-20:]):
        return disk_full()
    step = _last_step(lines)
    if _NO_CONTEXT.search(said):
        return Failure(
            STEP_FAILED,
            f"The docker step {step or 'COPY'!r} needs a file, and an environment has none: fetch it with "
            "RUN curl, or use ADD with an address or COPY --from with an image.",
        )
    if found := _EXIT.search(said):
        last = next((x.strip() for x in reversed(lines) if x.strip() and not _noise(x)), "")
        because = f" Its last line: {last}" if last else ""
        return Failure(
            STEP_FAILED, f"The docker step {step!r} ended with exit code {found[1]}.{because}"
        )
    at = f" at the docker step {step!r}" if step else ""
    return Failure(STEP_FAILED if step else FAILED_CODE, f"The build failed{at}: {_short(said)}.")


def of_script(code: int, lines: Sequence[str], installer: str) -> Failure:
    """Why the builder's script ended with this exit code."""
    if any(_DISK.search(line) for line in lines):
        return disk_full()
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    if code == builder_script.NO_PYTHON:
        return Failure(
            FAILED_CODE,
            "The base image has no Python. Choose one that has, or ask conda for it with a line such as "
            "python=3.11.",
        )
    if code == builder_script.NO_PIP:
        return Failure(
            FAILED_CODE,
            "The base image's Python has no pip. Install it in the docker steps (RUN apt-get install -y "
            "python3-pip python3-venv), or choose another base image.",
        )
    if code == builder_script.NO_SERVER:
        return Failure(
            FAILED_CODE,
            f"The packages were installed, but the scoring server does not start with them: {last}",
        )
    if code == builder_script.NO_MICROMAMBA:
        return Failure(
            UNREACHABLE_CODE,
            "The environment has conda packages, and micromamba, which installs them, could not be fetched. "
            "Check SLIPWAY_MICROMAMBA_URL and the Engine's network.",
        )
    if code == builder_script.CONDA_FAILED:
        return _of_conda(lines)
    if code == 137:
        return Failure(
            FAILED_CODE,
            "The builder container was killed: the Engine's machine was out of memory, or somebody stopped "
            "it. Build again.",
        )
    explained = installers.explain(
        lines, installer=installer, folder="the Engine's data", elsewhere=_INSTEAD
    )
    return Failure(UNREACHABLE_CODE if explained.temporary else FAILED_CODE, explained.message)


def disk_full() -> Failure:
    return Failure(
        DISK_FULL,
        "The disk of the Docker Engine is full. Free some room on its machine (docker system df shows what "
        "takes it; unused images can be removed on their environments' pages) and build again.",
    )


def timed_out(seconds: int, step: str) -> Failure:
    at = f" at the docker step {step!r}" if step else ""
    return Failure(
        TIMED_OUT,
        f"The build took longer than {seconds} s and was stopped{at}. A step that waits for an answer never "
        "gets one; else ask for less, or raise SLIPWAY_BUILD_TIMEOUT.",
    )


def last_step(lines: Sequence[str]) -> str:
    """The docker step that ran last, as it was written; "" before the first."""
    return _last_step(lines)


def _of_conda(lines: Sequence[str]) -> Failure:
    text = "\n".join(lines)
    if re.search(
        r"Could not resolve host|Connection refused|Timeout was reached|download error", text, re.I
    ):
        return Failure(
            UNREACHABLE_CODE,
            "micromamba could not reach a conda channel. Check the network, the proxy and "
            "SLIPWAY_CONDA_ALIAS, and build again.",
        )
    # `└─ numpi =1.5 * does not exist (perhaps a typo or a missing channel).`
    missing = re.search(
        r"(?:^|[\s─])(\w[\w.\-]*)(?:[ =<>!~*|,][^\n]*)? does not exist"
        r"|nothing provides(?: requested)? ([\w.\-]+)",
        text,
        re.MULTILINE,
    )
    if missing:
        name = missing[1] or missing[2]
        better = installers.suggestion(name)
        hint = f": did you mean {better}?" if better else ". Check its name and the channels."
        return Failure(FAILED_CODE, f"conda's channels have no {name} that fits{hint}")
    said = next(
        (x.strip() for x in reversed(lines) if re.match(r"\s*(error|critical)", x, re.I)), ""
    )
    return Failure(FAILED_CODE, f"micromamba could not install the conda packages. {said}".strip())


def _tls(host: str, said: str) -> str:
    return (
        f"The Engine could not talk to the registry {host} over TLS: {_short(said)}. Give the Engine the "
        f"registry's certificate (/etc/docker/certs.d/{host}/ca.crt)."
    )


def _last_step(lines: Sequence[str]) -> str:
    steps = [found[2] for line in lines if (found := _STEP.match(line.strip()))]
    shown = " ".join(steps[-1].split()) if steps else ""
    return shown if len(shown) <= 120 else f"{shown[:117]}..."


def _noise(line: str) -> bool:
    return line.lstrip().startswith(("--->", "Step ", "Removing intermediate"))


def _short(said: str) -> str:
    text = " ".join(said.split()).removeprefix("Error response from daemon: ").rstrip(".")
    return text if len(text) <= 300 else f"{text[:297]}..."

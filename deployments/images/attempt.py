"""One attempt at one image: what is asked of the Engine, in order, under the row's claim.

    base image -> docker steps -> builder container -> image -> list and scan -> push

Safety rule: only the holder of the claim works here. What it makes on the way (a builder container, the
image that one leaves) is labelled with the hash, and whoever builds the hash next removes it first; the
image itself gets its name only when it is whole. An image counts when the row says READY.
"""

import contextlib
import logging
import secrets
import time
from collections.abc import Callable
from typing import Any

from django.conf import settings

from deployments.engine import build as builder
from deployments.engine import images
from deployments.engine.streaming import Call, EngineSaid, TimedOut
from deployments.environments import claims
from deployments.environments.building import Attempt, Log
from deployments.environments.definition import Definition
from deployments.errors import SlipwayError
from deployments.images import (
    builder_script,
    causes,
    dockerfile,
    layers,
    progress,
    references,
    registries,
    scan,
)
from deployments.images.causes import Failure
from deployments.images.company import build_settings
from deployments.images.engines import Place
from deployments.images.models import ImageBuild, Registry
from deployments.images.plan import ImagePlan, image_plan, needs_conda
from deployments.images.pulling import failure_error, pull_image
from deployments.version import VERSION

logger = logging.getLogger(__name__)

SOURCE = "image"  # of its lines in the hash's log
CACHE_VOLUME = "slipway-build-cache"
BUILDER_REPOSITORY = "slipway-builder"
LOCAL_REPOSITORY = "slipway/env"  # the name of images that are in no registry
_LOOK = 1.0  # seconds between two looks whether it was cancelled
_PROBE = "import sys, json; print(json.dumps(sys.version_info[:2]))"  # of the base image's Python


class ImageAttempt(Attempt):
    """`quick` answers at once or not at all; `slow` is for calls that are followed."""

    def __init__(
        self,
        row: ImageBuild,
        name: str,
        log: Log,
        *,
        place: Place,
        quick: images.Client,
        slow: images.Client,
        check: Callable[[], None],
    ) -> None:
        super().__init__(row, name, log, source=SOURCE)
        self._place = place
        self._quick = quick
        self._slow = slow
        self._check = check
        self._settings = build_settings()
        self._deadline = time.monotonic() + settings.ENV.build_timeout
        self._looked = time.monotonic()

    def beat(self) -> None:
        """Also asks whether somebody cancelled it. Raises PermanentError (BuildCancelled)."""
        super().beat()
        if time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        self._check()
        if claims.mine(self.row, self.name).filter(cancel_asked=True).exists():
            raise self.error("The build was cancelled.", code=causes.CANCELLED)

    def make(self, definition: Definition, workspace: Registry | None) -> dict[str, Any]:
        """Build and push. What the READY row says. Raises SlipwayError, ClaimLost."""
        try:
            return self._make(definition, workspace)
        except TimedOut as error:
            step = causes.last_step(self.lines)
            raise self._failure(causes.timed_out(settings.ENV.build_timeout, step)) from error
        finally:
            self._clear()

    def _make(self, definition: Definition, workspace: Registry | None) -> dict[str, Any]:
        hash_ = self.row.hash
        self.must_hold()
        self._clear()
        base = definition.base_image or settings.ENV.base_image
        self._base(base)
        plan = image_plan(definition, default_base=base, python=None, looked=False)
        stage = self._steps(plan) if plan.steps else base
        python = None if needs_conda(definition) else self._python(stage)
        plan = image_plan(definition, default_base=base, python=python)
        for note in plan.notes:
            self.say(note)
        if plan.problems:
            raise self.error(" ".join(problem.message for problem in plan.problems))
        left = f"{BUILDER_REPOSITORY}:{hash_[:16]}-{secrets.token_hex(4)}"
        text = dockerfile.dockerfile(
            plan,
            builder=left,
            environment_hash=hash_,
            version=VERSION,
            layers=self._install(plan, stage, left),
        )
        claims.mine(self.row, self.name).update(dockerfile=text)
        made = self._build(text)
        self._clear()
        self._look_into(made)
        return {**self._publish(made, workspace), "dockerfile": text}

    def _base(self, base: str) -> None:
        found = images.inspect(self._quick, base)
        if found is not None:
            self.say(f"Base image {base} is on the Engine ({found.id[7:19]}).")
            return
        self.say(f"Pulling the base image {base}.")
        pull_image(self, self._slow, base, deadline=self._deadline)

    def _steps(self, plan: ImagePlan) -> str:
        """The image of the base with its docker steps."""
        return self._docker_build(dockerfile.steps_stage(plan), target=dockerfile.STEPS_STAGE)

    def _build(self, text: str) -> str:
        return self._docker_build(text)

    def _docker_build(self, text: str, target: str = "") -> str:
        stream = images.build(
            self._slow,
            text,
            target=target,
            arguments=self._settings.proxies,
            network=settings.ENV.build_network,
        )
        made = ""

        def take(events: list[Any]) -> None:
            nonlocal made
            lines, image = progress.build_lines(events)
            made = image or made
            self.say_all([builder_script.hide(line, self._settings) for line in lines])

        try:
            self._follow(stream.call(), take)
        except EngineSaid as error:
            said = builder_script.hide(error.message, self._settings)
            raise self._failure(causes.of_steps(said, self.lines)) from error
        if not made:
            raise self.error("The Engine ended the build without an image; build again.")
        return made

    def _python(self, stage: str) -> tuple[int, int] | None:
        """Which Python the stage has; None where it has none."""
        found: list[str] = []
        script = f"python=$(command -v python3 || command -v python) && \"$python\" -c '{_PROBE}' || true\n"
        self._container(stage, script, found.extend)
        for line in found:
            with contextlib.suppress(ValueError):
                major, minor = (int(part) for part in line.strip("[] \n").split(","))
                return major, minor
        return None

    def _install(self, plan: ImagePlan, stage: str, left: str) -> tuple[layers.Layer, ...]:
        """Fill a builder container, and leave an image of it under the name `left`. The layers in it,
        in the order that shares most with an image the Engine has."""
        tool = "micromamba and " if plan.conda else ""
        self.say(f"Installing the packages with {tool}{self._settings.installer}.")
        self.say("Packages: " + ", ".join((*plan.conda, *plan.requirements)))
        began = len(self.lines)

        def take(lines: list[str]) -> None:
            self.say_all([builder_script.hide(line, self._settings) for line in lines])

        code, container = self._container(
            stage, builder_script.script(plan, self._settings), take, keep=True
        )
        if code != 0:
            said = self.lines[began:]
            raise self._failure(causes.of_script(code, said, self._settings.installer))
        repository, _, tag = left.partition(":")
        keep: Call[str] = Call(lambda put: images.commit(self._slow, container, repository, tag))
        try:
            self._follow(keep, lambda events: None)
        except SlipwayError as error:
            if "no space" in error.message:
                raise self._failure(causes.disk_full()) from error
            raise
        if plan.conda:
            return ()
        there = images.labelled(self._quick, layers.LABEL)
        return layers.ordered(
            layers.said(self.lines[began:]),
            [layers.parse(image.labels[layers.LABEL]) for image in there],
        )

    def _container(
        self,
        image: str,
        script: str,
        take: Callable[[list[str]], None],
        *,
        keep: bool = False,
    ) -> tuple[int, str]:
        data = script.encode()
        container = builder.create(
            self._quick,
            image,
            data,
            label=self.row.hash,
            folder=builder_script.FOLDER,
            cache=CACHE_VOLUME,
            cache_at=builder_script.CACHE,
            network=settings.ENV.build_network,
        )
        code = self._follow(builder.run(self._slow, container, data), take)
        if not keep:
            builder.remove(self._quick, container)
        return code, container

    def _look_into(self, image: str) -> None:
        """List what is in it, ask the scanner, and refuse what the cluster refuses: before the push."""
        call: Call[scan.Scan] = Call(
            lambda put: scan.inspect(self._slow, image, put, subject=self.row.hash)
        )
        found = self._follow(call, lambda lines: self.say_all([str(line) for line in lines]))
        self.must_hold()
        scan.keep(ImageBuild.objects.get(pk=self.row.pk), found)
        scan.refuse(found, self._place.refuse)

    def _publish(self, made: str, workspace: Registry | None) -> dict[str, Any]:
        hash_ = self.row.hash
        self.must_hold()
        info = images.inspect(self._quick, made)
        size = info.size if info else None
        images.tag(self._quick, made, LOCAL_REPOSITORY, hash_)
        if workspace is None:
            self.say(
                "No workspace registry is set up: the image stays on this Engine "
                f"({size_words(size)}, {made[7:19]})."
            )
            return {"reference": made, "digest": "", "registry": None, "size": size}
        name = f"{workspace.address}/{references.image_path(workspace.repository)}"
        images.tag(self._quick, made, name, hash_)
        self.say(f"Pushing {name}:{hash_[:12]} ({size_words(size)}).")
        digest = self._push(name, hash_, workspace)
        self.say(f"It is in the registry {workspace.name} as {digest}.")
        return {
            "reference": f"{name}@{digest}",
            "digest": digest,
            "registry": workspace,
            "size": size,
        }

    def _push(self, name: str, tag: str, workspace: Registry) -> str:
        seen = progress.Progress("Pushing", time.monotonic())
        auth = registries.credentials_of(workspace)
        stream = images.push(self._slow, name, tag, auth)
        try:
            self._follow(
                stream.call(), lambda events: self.say_all(seen.lines(events, time.monotonic()))
            )
        except EngineSaid as error:
            raise self._failure(causes.of_push(error.message, name, workspace.address)) from error
        if not seen.digest:
            raise self.error("The Engine ended the push without a digest; deploy again.")
        return seen.digest

    def follow(
        self, call: "Call[Any]", on_events: Callable[[list[Any]], None], deadline: float
    ) -> Any:
        return call.follow(on_events=on_events, beat=self.beat, deadline=deadline)

    def _follow(self, call: "Call[Any]", on_events: Callable[[list[Any]], None]) -> Any:
        return self.follow(call, on_events, self._deadline)

    def _failure(self, failure: Failure) -> SlipwayError:
        return failure_error(failure, self.evidence)

    def _clear(self) -> None:
        """Remove what an attempt at this hash leaves: also one that was killed. An Engine that is away
        keeps it for the next one."""
        try:
            clear(self._quick, self.row.hash)
        except SlipwayError as error:
            logger.warning("build %s: not cleared: %s", self.row.hash[:12], error.message)


def clear(client: images.Client, hash_: str) -> int:
    """Remove builder containers and what they left, of one hash. Raises SlipwayError."""
    containers = builder.left_over(client, hash_)
    for container, _ in containers:
        builder.remove(client, container)
    left = images.labelled(client, f"{builder.LABEL}={hash_}")
    for image in left:
        images.remove(client, image.id, force=True)
    return len(containers) + len(left)


def size_words(size: int | None) -> str:
    return "size unknown" if size is None else f"{size / 2**20:,.0f} MiB"

"""The image of an environment: found in a registry, or built once, and brought to where it is wanted.

    workspace registry -> global registries -> build and push

Each look-up, its answer and its time are lines of the log. One look-up and one build a hash across all
workers: the row is claimed (`deployments.environments.claims`). A registry that has the image no more, or an
Engine that lost it, makes it built anew.
"""

import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.utils import timezone

from deployments.engine import client, images
from deployments.engine.streaming import TimedOut
from deployments.environments import building, claims
from deployments.environments.building import ClaimLost, Log
from deployments.environments.definition import Definition, parse
from deployments.environments.models import BuildState, Environment
from deployments.errors import PermanentError, SlipwayError, TemporaryError
from deployments.images import causes, references, registries, scan
from deployments.images.attempt import SOURCE, ImageAttempt, size_words
from deployments.images.engines import Place, all_engines
from deployments.images.models import ImageBuild, Registry
from deployments.images.pulling import Follower, pull_image
from deployments.signals import announce
from deployments.types import EngineSpec


def ensure_image(
    environment: Environment,
    place: Place,
    *,
    log: Log,
    check: Callable[[], None] = lambda: None,
) -> ImageBuild:
    """The READY row of this environment's image, which is where `place` wants it.

    `log` gets lines; `check` is called about each second and may raise. Raises PermanentError or
    TemporaryError with a cause's code and the last lines. Call it outside a transaction.
    """
    definition = parse(
        base_image=environment.base_image,
        docker_steps=environment.docker_steps,
        conda_yaml=environment.conda_yaml,
        pip_requirements=environment.pip_requirements,
    )
    if place.needs_registry and registries.workspace() is None and not registries.global_ones():
        raise _no_registry("none is set up")
    row = building.ensure(
        ImageBuild,
        environment.hash,
        what="Image",
        source=SOURCE,
        complete=lambda build: _stands(build, place, log),
        build=lambda build, name: _Maker(build, name, place, log, check).make(definition),
        log=log,
        check=check,
        temporary=causes.TEMPORARY,
    )
    if place.runs_there:
        _bring(row, place.engine, log, check)
    _vet(row, place, log)
    return ImageBuild.objects.get(pk=row.pk)


def look_for(registry: Registry, tag: str, log: Log) -> str | None:
    """The digest of an image in a registry, None where it is not there. Raises SlipwayError."""
    path = references.image_path(registry.repository)
    kind = "workspace" if registry.role == Registry.Role.WORKSPACE else "global"
    where = f"{kind} registry {registry.address}"
    began = time.monotonic()
    try:
        with registries.api(registry) as asked:
            answer = asked.find(path, tag)
    except SlipwayError as error:
        took = (time.monotonic() - began) * 1000
        log(f"Looked for {path}:{tag[:12]} in {where}: no answer ({took:.0f} ms): {error.message}")
        raise
    found = f"found {answer.digest[:19]}" if answer.digest else "not there"
    log(f"Looked for {path}:{tag[:12]} in {where}: {found} ({answer.seconds * 1000:.0f} ms).")
    return answer.digest


def _stands(row: ImageBuild, place: Place, log: Log) -> bool:
    """Whether what a READY row speaks of is still there, and is of use to this place."""
    if row.registry is None:
        return not place.needs_registry and _on_engine(row, place)
    try:
        digest = look_for(row.registry, row.hash, log)
    except TemporaryError:
        if place.runs_there and _on_engine(row, place):
            log("The image is on the Engine; going on without the registry.")
            return True
        raise
    return digest == row.digest


def _on_engine(row: ImageBuild, place: Place) -> bool:
    """Raises PermanentError where it may be on an Engine that this one cannot take it from."""
    engine = client.connect(place.engine)
    try:
        there = images.inspect(engine, row.reference) is not None
    finally:
        engine.close()
    if not there and row.registry is None and len(all_engines()) > 1:
        raise PermanentError(
            f"The image {row.hash[:12]} is not on the Engine at {place.engine.url}, and there is no registry "
            "to take it from. With several Engines, add the workspace's registry under Registries, then "
            "remove the image on its environment's page and deploy again.",
            code=causes.NO_REGISTRY,
        )
    return there


class _Maker:
    """Whoever has the claim: looks, else builds; writes down what came of it."""

    def __init__(
        self, row: ImageBuild, name: str, place: Place, log: Log, check: Callable[[], None]
    ) -> None:
        self._row = row
        self._name = name
        self._place = place
        self._log = log
        self._check = check

    def make(self, definition: Definition) -> ImageBuild:
        """READY, or FAILED and raised; given back when stopped from outside."""
        began = time.monotonic()
        attempt = building.Attempt(self._row, self._name, self._log, source=SOURCE)
        try:
            found = self._look(attempt)
            if found is None and self._place.needs_registry and registries.workspace() is None:
                raise _no_registry("it is in none of them, and there is none to push it to")
            if found is None:
                quick = client.connect(self._place.engine)
                slow = client.connect(
                    self._place.engine, deadline=float(settings.ENV.build_timeout)
                )
                try:
                    attempt = ImageAttempt(
                        self._row,
                        self._name,
                        self._log,
                        place=self._place,
                        quick=quick,
                        slow=slow,
                        check=self._check,
                    )
                    attempt.say(f"Building image {self._row.hash[:12]}.")
                    found = attempt.make(definition, registries.workspace())
                finally:
                    quick.close()
                    slow.close()
            if not claims.finish(self._row, self._name, now=timezone.now(), **found):
                raise ClaimLost
        except ClaimLost:
            raise
        except SlipwayError as error:
            attempt.failed(error)
            raise
        except BaseException:
            attempt.given_back()
            raise
        took = time.monotonic() - began
        what = "was found" if found.get("found") else f"is ready: {size_words(found['size'])}"
        attempt.say(f"Image {self._row.hash[:12]} {what} in {took:.1f} s.")
        announce("environment", self._row.hash)
        return ImageBuild.objects.get(pk=self._row.pk)

    def _look(self, attempt: building.Attempt) -> dict[str, Any] | None:
        """Found in the workspace's registry, or in a global one; a global one that is away is passed over."""
        workspace = registries.workspace()
        if workspace is None:
            attempt.say("There is no workspace registry to look in.")
        elif digest := look_for(workspace, self._row.hash, attempt.say):
            return _found(workspace, digest)
        for registry in registries.global_ones():
            attempt.beat()
            try:
                digest = look_for(registry, self._row.hash, attempt.say)
            except SlipwayError:
                continue  # its line is in the log; building does without it
            if digest:
                return _found(registry, digest)
        return None


def _no_registry(why: str) -> PermanentError:
    return PermanentError(
        f"The cluster's nodes pull images from a registry, and {why}. Add the workspace's registry under "
        "Registries, then deploy again.",
        code=causes.NO_REGISTRY,
    )


def _found(registry: Registry, digest: str) -> dict[str, Any]:
    name = f"{registry.address}/{references.image_path(registry.repository)}"
    return {
        "reference": f"{name}@{digest}",
        "digest": digest,
        "registry": registry,
        "found": True,
        "size": None,
    }


def _bring(row: ImageBuild, spec: EngineSpec, log: Log, check: Callable[[], None]) -> None:
    """Onto the Engine that replicas are started from. Raises SlipwayError."""
    quick = client.connect(spec)
    try:
        info = images.inspect(quick, row.reference)
        if info is None:
            log(f"Pulling {row.reference} onto the Engine.")
            deadline = time.monotonic() + settings.ENV.build_timeout
            slow = client.connect(spec, deadline=float(settings.ENV.build_timeout))
            try:
                pull_image(Follower(log, check), slow, row.reference, deadline=deadline)
            except TimedOut as error:
                raise TemporaryError(
                    f"Pulling {row.reference} took longer than {settings.ENV.build_timeout} s and was given "
                    "up. Check the network between the Engine and the registry, or raise "
                    "SLIPWAY_BUILD_TIMEOUT.",
                    code=causes.TIMED_OUT,
                ) from error
            finally:
                slow.close()
            info = images.inspect(quick, row.reference)
        if info is not None and row.size != info.size:
            ImageBuild.objects.filter(pk=row.pk, state=BuildState.READY).update(size=info.size)
            announce("environment", row.hash)
    finally:
        quick.close()


def _vet(row: ImageBuild, place: Place, log: Log) -> None:
    """What the cluster refuses, also of an image that was built for another one or found."""
    row.refresh_from_db()
    if place.refuse and row.sbom is None and place.runs_there:
        engine = client.connect(place.engine, deadline=float(settings.ENV.build_timeout))
        try:
            scan.keep(row, scan.inspect(engine, row.reference, log, subject=row.hash))
        finally:
            engine.close()
    scan.vet(row, place.refuse, log)

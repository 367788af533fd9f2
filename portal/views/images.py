"""The image part of an environment's page: its card, building, cancelling, removing.

The Dockerfile that is shown before a build is what the build will send, but for what only a look at the base
image can tell.
"""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_GET, require_POST

from deployments.clusters.models import Cluster
from deployments.environments import claims, usage
from deployments.environments.definition import parse
from deployments.environments.models import BuildState, Environment
from deployments.errors import SlipwayError
from deployments.images import changes
from deployments.images.dockerfile import dockerfile
from deployments.images.models import ImageBuild
from deployments.images.plan import image_plan
from deployments.version import VERSION
from portal.access import person, requires
from portal.models import Role

_STALLED, _NOT_BUILT = "stalled", "not built"


def image_context(environment: Environment) -> dict[str, Any]:
    """What `environments/_image.html` shows."""
    build = ImageBuild.objects.select_related("registry").filter(hash=environment.hash).first()
    state = _state(build)
    definition = parse(
        base_image=environment.base_image,
        docker_steps=environment.docker_steps,
        conda_yaml=environment.conda_yaml,
        pip_requirements=environment.pip_requirements,
    )
    plan = image_plan(definition, default_base=settings.ENV.base_image, python=None, looked=False)
    planned = dockerfile(
        plan, builder="slipway-builder", environment_hash=environment.hash, version=VERSION
    )
    return {
        "environment": environment,
        "image": build,
        "image_state": state,
        "image_plan": plan,
        "dockerfile": (build.dockerfile if build else "") or planned,
        "image_used_by": usage.services_using([environment.hash]).get(environment.hash, []),
        "image_can_build": state in (_NOT_BUILT, _STALLED, BuildState.FAILED, BuildState.REMOVED),
        "image_clusters": Cluster.objects.exclude(kind=Cluster.Kind.PROCESS).exists(),
    }


def _state(build: ImageBuild | None) -> str:
    if build is None:
        return _NOT_BUILT
    if build.state == BuildState.BUILDING and not claims.is_running(build, timezone.now()):
        return _STALLED
    return str(build.state)


@requires(Role.VIEWER)
@require_GET
def image_card(request: HttpRequest, name: str, version: int) -> HttpResponse:
    return render(request, "environments/_image.html", image_context(_get(name, version)))


@requires(Role.DEPLOYER)
@require_POST
def image_build(request: HttpRequest, name: str, version: int) -> HttpResponse:
    environment = _get(name, version)
    return _do(request, environment, changes.request_build, "The build of its image is queued.")


@requires(Role.DEPLOYER)
@require_POST
def image_cancel(request: HttpRequest, name: str, version: int) -> HttpResponse:
    environment = _get(name, version)
    return _do(request, environment, changes.cancel_build, "The build is being cancelled.")


@requires(Role.DEPLOYER)
@require_POST
def image_remove(request: HttpRequest, name: str, version: int) -> HttpResponse:
    environment = _get(name, version)
    return _do(request, environment, changes.remove_image, "The image is removed from the Engine.")


def _do(
    request: HttpRequest, environment: Environment, change: Any, done: str
) -> HttpResponseRedirect:
    try:
        change(person(request), environment)
    except SlipwayError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, done)
    back = request.POST.get("next", "")
    if back and url_has_allowed_host_and_scheme(back, allowed_hosts=None):
        return HttpResponseRedirect(back)
    return redirect(environment)


def _get(name: str, version: int) -> Environment:
    found = Environment.objects.filter(name=name, version=version).first()
    if found is None:
        raise Http404(f"There is no environment {name}:{version}; it may have been deleted.")
    return found

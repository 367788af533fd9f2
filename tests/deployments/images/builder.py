"""A process that needs an image, with a small script in place of pip.

    python -m tests.deployments.images.builder prepare <address of the registry> [base image]
    python -m tests.deployments.images.builder build <seconds>
    python -m tests.deployments.images.builder show

`prepare` makes the tables, one environment and the workspace's registry; `build` builds, its builder
container writing five lines over these seconds; each prints what came of it as JSON.
"""

import json
import sys
from datetime import timedelta

import django


def small_script(seconds: float, megabytes: int = 1) -> str:
    """Installs a file that is no Python, which no step after it looks at."""
    return (
        "set -e\nmkdir -p /opt/slipway/bin\n"
        f"for number in 0 1 2 3 4; do echo line $number; sleep {seconds / 5}; done\n"
        f"head -c {megabytes * 2**20} /dev/urandom >/opt/slipway/bin/blob\n"
    )


def main(what: str, argument: str = "", base: str = "") -> None:
    django.setup()
    from deployments.environments import building, claims
    from deployments.environments.changes import create_environment
    from deployments.environments.models import Environment
    from deployments.errors import SlipwayError
    from deployments.images import attempt, builder_script, registries
    from deployments.images.builds import ensure_image
    from deployments.images.engines import default_place
    from deployments.images.models import ImageBuild

    if what == "prepare":
        from django.core.management import call_command

        call_command("migrate", run_syncdb=True, verbosity=0)
        create_environment(
            None,
            name="shared",
            conda_yaml="dependencies: [numpy]",  # no look at the base image's Python
            pip_requirements=f"six=={argument.rpartition(':')[2]}",  # a hash of its own
            base_image=base,
        )
        registries.add(
            None,
            name="workspace",
            role="workspace",
            address=argument,
            repository="tests",
            plain_http=True,
        )
        print(json.dumps({"hash": Environment.objects.get().hash}))
        return
    if what == "show":
        build = ImageBuild.objects.get()
        print(json.dumps({"state": build.state, "reference": build.reference}))
        return
    claims.LEASE = timedelta(seconds=3)
    building._RENEW = 0.5
    attempt.CACHE_VOLUME = "slipway-tests-build-cache"
    builder_script.script = lambda plan, settings: small_script(float(argument))  # type: ignore[assignment]
    attempt.ImageAttempt._look_into = lambda self, image: None  # type: ignore[method-assign]
    lines: list[str] = []
    try:
        build = ensure_image(Environment.objects.get(), default_place(), log=lines.append)
        outcome = {"reference": build.reference, "lines": lines}
    except SlipwayError as error:
        outcome = {"error": error.message, "code": error.code, "lines": lines}
    print(json.dumps(outcome))


if __name__ == "__main__":
    main(*sys.argv[1:])

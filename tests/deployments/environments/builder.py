"""A process that needs an environment, with a small program in place of uv.

    python -m tests.deployments.environments.builder prepare|build|show <seconds> [fail]

`prepare` makes the tables and one environment; `build` builds it, its installer writing a line and
waiting; each prints what came of it as JSON.
"""

import json
import sys
from datetime import timedelta
from pathlib import Path

import django

_INSTALLER = """
import sys, time, pathlib
venv, seconds, fails = pathlib.Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "fail"
(venv / "bin").mkdir()
for number in range(5):
    print(f"line {number}", flush=True)
    time.sleep(seconds / 5)
with (venv.parent.parent / "runs").open("a") as runs:
    runs.write("x")
if fails:
    wanted = "the requirement scikit-lern==1.5 (from versions: none)"
    sys.exit(f"ERROR: Could not find a version that satisfies {wanted}")
(venv / "bin" / "python").touch()
"""


def main(what: str, seconds: str, ending: str = "succeed") -> None:
    django.setup()
    from deployments.environments import building, claims, installer, venvs
    from deployments.environments.changes import create_environment
    from deployments.environments.models import Environment, EnvironmentBuild
    from deployments.errors import SlipwayError

    if what == "prepare":
        from django.core.management import call_command

        call_command("migrate", run_syncdb=True, verbosity=0)
        create_environment(None, name="shared", pip_requirements="six")
        return
    environment = Environment.objects.get()
    if what == "show":
        build = EnvironmentBuild.objects.get()
        print(json.dumps({"state": build.state, "location": build.location}))
        return
    claims.LEASE = timedelta(seconds=3)
    building._RENEW = 0.5

    def commands(tool: str, *, python: Path, venv: Path) -> list[list[str]]:
        return [[sys.executable, "-c", _INSTALLER, str(venv), seconds, ending], ["true"]]

    installer.commands = commands  # type: ignore[assignment]
    lines: list[str] = []
    try:
        build = venvs.ensure_built(environment, log=lines.append)
        outcome = {"location": build.location, "lines": lines}
    except SlipwayError as error:
        outcome = {"error": error.message, "evidence": error.evidence, "lines": lines}
    print(json.dumps(outcome))


if __name__ == "__main__":
    main(*sys.argv[1:])

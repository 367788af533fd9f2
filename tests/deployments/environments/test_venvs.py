"""One builder: real environments, deadlines, failures, and what is left on the disk."""

import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from django.conf import settings

from deployments import logstore
from deployments.environments import installer, venvs
from deployments.environments.changes import create_environment
from deployments.environments.models import BuildState, Environment, EnvironmentBuild
from deployments.errors import PermanentError, TemporaryError


def silent(line: str) -> None:
    """A log nobody reads."""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a Python program in uv's place; it gets the environment's folder as its argument."""

    def put(program: str) -> None:
        def commands(tool: str, *, python: Path, venv: Path) -> list[list[str]]:
            return [[sys.executable, "-c", program, str(venv)], ["true"]]

        monkeypatch.setattr(installer, "commands", commands)

    return put


def env(monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
    monkeypatch.setattr(settings, "ENV", dataclasses.replace(settings.ENV, **values))


def test_a_built_environment_is_used_again_and_its_use_noted(
    environment: Environment, fake: Callable
) -> None:
    fake("print('one'); print('two')")
    lines: list[str] = []
    build = venvs.ensure_built(environment, log=lines.append)
    assert build.state == BuildState.READY
    assert venvs.is_complete(build.location)
    assert build.size is not None and build.size > 0
    assert {"one", "two"} < set(lines)
    stored, _ = logstore.read(settings.HOME.environment_log(environment.hash))
    assert [entry.text for entry in stored][-len(lines) :] == lines
    fake("raise SystemExit(1)")
    again = venvs.ensure_built(environment, log=silent)
    assert again.location == build.location
    assert again.last_used_at > build.last_used_at


def test_an_environment_whose_folder_is_gone_is_built_again(
    environment: Environment, fake: Callable
) -> None:
    fake("")
    build = venvs.ensure_built(environment, log=silent)
    Path(build.location, ".complete").unlink()
    assert venvs.ensure_built(environment, log=silent).location != build.location
    assert not Path(build.location).exists()


def test_a_failed_build_keeps_its_log_and_cause_and_nothing_else(
    environment: Environment, fake: Callable
) -> None:
    fake(
        "import pathlib, sys; pathlib.Path(sys.argv[1], 'half').touch(); sys.exit('error: broken')"
    )
    with pytest.raises(PermanentError) as caught:
        venvs.ensure_built(environment, log=silent)
    assert caught.value.code == "EnvironmentBuildFailed"
    assert caught.value.message == "uv failed: error: broken"
    assert "error: broken" in caught.value.evidence
    row = EnvironmentBuild.objects.get()
    assert (row.state, row.error) == (BuildState.FAILED, caught.value.message)
    assert not (settings.HOME.environments / environment.hash).exists()
    fake("")
    assert venvs.ensure_built(environment, log=silent).state == BuildState.READY


def test_a_build_that_takes_too_long_is_stopped(
    environment: Environment, fake: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    env(monkeypatch, build_timeout=1)
    fake("import time; print('begun', flush=True); time.sleep(60)")
    with pytest.raises(PermanentError, match="took longer than 1 s"):
        venvs.ensure_built(environment, log=silent)
    assert EnvironmentBuild.objects.get().state == BuildState.FAILED


def test_an_index_out_of_reach_is_a_temporary_error(
    environment: Environment, fake: Callable
) -> None:
    fake("import sys; sys.exit('cause: dns error')")
    with pytest.raises(TemporaryError, match="could not reach the package index"):
        venvs.ensure_built(environment, log=silent)
    assert EnvironmentBuild.objects.get().error_code == "PackageIndexUnreachable"


def test_a_full_disk_is_the_cause_when_the_folder_cannot_be_made(
    environment: Environment, fake: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake("")

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(PermanentError, match="disk that holds .* is full"):
        venvs.ensure_built(environment, log=silent)


def test_one_that_is_stopped_gives_the_build_back_and_takes_its_files_along(
    environment: Environment, fake: Callable
) -> None:
    fake("print('begun')")

    def interrupt(line: str) -> None:
        if line == "begun":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        venvs.ensure_built(environment, log=interrupt)
    row = EnvironmentBuild.objects.get()
    assert (row.state, row.claimed_by) == (BuildState.QUEUED, "")
    assert list((settings.HOME.environments / environment.hash).iterdir()) == []


def test_what_needs_another_kind_of_cluster_fails_before_anything_is_installed(
    db: None, fake: Callable
) -> None:
    fake("raise SystemExit('must not run')")
    environment = create_environment(None, name="gpu", conda_yaml="dependencies: [cudatoolkit=11]")
    with pytest.raises(PermanentError, match="cudatoolkit .* needs a Docker or Kubernetes cluster"):
        venvs.ensure_built(environment, log=silent)


def test_a_package_the_server_cannot_be_imported_with_fails_the_build(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commands(tool: str, *, python: Path, venv: Path) -> list[list[str]]:
        return [["true"], [sys.executable, "-c", "import no_such_module"]]

    monkeypatch.setattr(installer, "commands", commands)
    with pytest.raises(PermanentError, match="does not start with them: ModuleNotFoundError"):
        venvs.ensure_built(environment, log=silent)


def test_an_installer_sees_neither_slipways_secrets_nor_its_python_path(
    environment: Environment, fake: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLIPWAY_SECRET_KEY", "DATABASE_URL", "REDIS_URL", "PYTHONPATH", "PIP_INDEX_URL"):
        monkeypatch.setenv(name, "seen")
    fake("import os; print(sorted(n for n, v in os.environ.items() if v == 'seen'))")
    lines: list[str] = []
    venvs.ensure_built(environment, log=lines.append)
    assert "['PIP_INDEX_URL']" in lines


@pytest.mark.daemons
def test_pip_fills_the_environment_it_makes(tmp_path: Path) -> None:
    # without the scoring server, whose thirty packages pip takes long for
    (tmp_path / installer.REQUIREMENTS).write_text("six==1.17.0\n")
    lines: list[str] = []
    for command in installer.commands("pip", python=Path(sys.executable), venv=tmp_path)[:2]:
        code = installer.run(
            command,
            pid_file=tmp_path / "installer.json",
            deadline=time.monotonic() + 120,
            on_lines=lines.extend,
            beat=lambda: None,
        )
        assert code == 0, lines
    assert any("Successfully installed six-1.17.0" in line for line in lines)
    assert not (tmp_path / "installer.json").exists()


@pytest.mark.daemons
def test_a_real_environment_serves_by_script_and_by_module(environment: Environment) -> None:
    build = venvs.ensure_built(environment, log=silent)
    scripts = Path(build.location, "bin")
    by_module = [scripts / "python", "-m", "azureml_inference_server_http"]
    for command in ([scripts / "azmlinfsrv"], by_module):
        result = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False)
        assert "--entry_script" in result.stdout, result.stderr
    result = subprocess.run(
        [scripts / "python", "-c", "import six, sys; print(six.__version__, sys.prefix)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["1.17.0", build.location]

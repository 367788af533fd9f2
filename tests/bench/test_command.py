"""What `bench/router` may be asked."""

import subprocess
from pathlib import Path

import pytest

from bench.routing import __main__ as command
from bench.routing import figures, install, latency, suites, throughput
from bench.routing.context import QUICK
from bench.routing.processes import BenchError, Cores


def test_an_option_that_does_not_exist_is_refused_by_its_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        command.arguments(["--fast"])
    assert "--fast" in capsys.readouterr().err


def test_a_figure_that_does_not_exist_is_answered_with_those_that_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        command.arguments(["--only", "vs_traefik"])
    said = capsys.readouterr().err
    assert "vs_traefik" in said
    assert "vs_haproxy" in said


@pytest.mark.parametrize("words", [["--rounds", "0"], ["--markdown", "--only", "vs_ray"]])
def test_what_makes_no_sense_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        command.arguments(words)


def test_the_quick_run_measures_every_figure_with_fewer_and_shorter_rounds() -> None:
    chosen = command.arguments(["--quick"])
    assert suites.asked(chosen.only) == figures.KEYS
    assert command.length(chosen) == QUICK
    longer = command.length(command.arguments(["--quick", "--rounds", "7", "--seconds", "9"]))
    assert (longer.rounds, longer.throughput, longer.body) == (7, 9, QUICK.body)


def test_every_figure_is_taken_by_a_group() -> None:
    groups = throughput.KEYS | throughput.RAY | throughput.NEW_CONNECTIONS
    assert groups | latency.ADDED | set(latency.BODIES) == set(figures.KEYS)


def test_one_core_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {3})
    with pytest.raises(BenchError, match="Two cores"):
        Cores.choose()
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {3, 5})
    assert Cores.choose() == Cores(proxy=5, load=3)


def test_a_program_that_is_missing_is_named_with_its_package() -> None:
    with pytest.raises(BenchError, match="no-such-proxy is missing: apt-get install its-package"):
        install.program("no-such-proxy", "its-package")


def test_an_environment_that_could_not_be_filled_is_not_taken_for_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    commands: list[list[str]] = []

    def refused(words: list[str], **_: object) -> subprocess.CompletedProcess:
        commands.append(words)
        return subprocess.CompletedProcess(words, "venv" not in words, "", "no such package")

    monkeypatch.setattr("subprocess.run", refused)
    for _ in range(2):
        with pytest.raises(BenchError, match="no such package"):
            install.environment("peers", ("a-peer==1",))
    assert len(commands) == 6  # made anew, by uv, by pip: twice


def test_an_environment_is_made_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    commands: list[list[str]] = []

    def done(words: list[str], **_: object) -> subprocess.CompletedProcess:
        commands.append(words)
        Path(words[-1]).mkdir(parents=True, exist_ok=True) if "venv" in words else None
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr("subprocess.run", done)
    first = install.environment("peers", ("a-peer==1",))
    assert install.environment("peers", ("a-peer==1",)) == first
    assert len(commands) == 2
    install.environment("peers", ("a-peer==2",))
    assert len(commands) == 4

"""Causes are read from what the real scoring server, gunicorn and shim wrote (`logs/`)."""

from dataclasses import replace

import pytest

from deployments.agent import causes
from deployments.types import Exit, Resources
from tests.deployments.agent.conftest import LOGS, a_revision

ENDED = Exit(code=3, signal=0, at=10.0)


def log(name: str) -> str:
    return (LOGS / f"{name}.txt").read_text()


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        (
            "import_error",
            "UserScriptImportError",
            "Importing score.py raised ValueError: bad table",
        ),
        (
            "syntax",
            "UserScriptImportError",
            "Importing score.py raised SyntaxError: invalid syntax",
        ),
        ("missing_package", "UserScriptImportError", "Add lightgbm to the environment"),
        ("init_error", "UserScriptInitFailed", "init() in score.py raised FileNotFoundError"),
        ("init_missing_package", "UserScriptInitFailed", "Add xgboost to the environment"),
        ("sys_exit", "UserScriptInitFailed", "init() in score.py raised SystemExit: 1"),
        ("no_init", "UserScriptImportError", "score.py does not have a init() function defined."),
        ("no_run", "UserScriptImportError", "score.py does not have a run() function defined."),
        (
            "no_argument",
            "UserScriptImportError",
            "run() needs to accept an argument for input data",
        ),
        ("missing_script", "UserScriptImportError", "There is no score.py in the project folder"),
        ("memory_error", "PodOutOfMemory", "ran out of memory"),
        ("worker_killed", "PodOutOfMemory", "ran out of memory"),
        ("disk_full", "DiskFull", "init() in score.py: the disk is full"),
        ("os_exit", "UserScriptInitFailed", "inside init() in score.py: it exited with code 1"),
        ("segfault", "UserScriptInitFailed", "it was sent SIGSEGV"),
        ("no_server", "EnvironmentBroken", "does not hold the scoring server"),
        (
            "bad_config",
            "InvalidConfiguration",
            "AZUREML_DEBUG_PORT: Input should be a valid integer",
        ),
    ],
)
def test_a_failed_start_is_told_in_plain_words(name, code, says, revision):
    cause = causes.of_end(log(name), ENDED, revision, was_ready=False)
    assert (cause.code, says in cause.message) == (code, True), cause.message


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("import_error", 'work/app/score.py", line 2, in <module>'),
        ("syntax", 'work/app/score.py", line 1'),
        ("init_error", 'work/app/score.py", line 4, in init'),
        ("missing_package", 'work/app/score.py", line 1, in <module>'),
    ],
)
def test_the_evidence_is_the_persons_own_traceback_alone(name, frame, revision):
    evidence = causes.of_end(log(name), ENDED, revision, was_ready=False).evidence
    assert evidence.startswith("Traceback (most recent call last):")
    assert frame in evidence
    assert "azureml_inference_server_http" not in evidence
    assert "frozen importlib" not in evidence


def test_an_import_name_is_told_as_the_package_to_install(revision):
    text = log("missing_package").replace("lightgbm", "sklearn.linear_model")
    cause = causes.of_end(text, ENDED, revision, was_ready=False)
    assert "imports sklearn.linear_model" in cause.message
    assert "Add scikit-learn to the environment (hash eeeeeeeeeeee)" in cause.message


def test_every_cause_says_something_and_shows_something(revision):
    for path in LOGS.glob("*.txt"):
        cause = causes.of_end(path.read_text(), ENDED, revision, was_ready=False)
        assert cause.code
        assert cause.message.endswith((".", "'", ")", "bad table", "syntax", "1")), cause.message
        assert cause.evidence


def test_the_kernels_word_on_memory_beats_the_log(revision):
    limited = replace(revision, resources=Resources(memory_gb_limit=1.5))
    exit_ = Exit(137, 9, 10.0, oom=True)
    cause = causes.of_end(log("ok"), exit_, limited, was_ready=True)
    assert cause.code == "PodOutOfMemory"
    assert "its limit is 1.5 GiB" in cause.message


@pytest.mark.parametrize(
    ("exit_", "says"),
    [
        (Exit(0, 0, 1.0), "ended with code 0"),
        (Exit(139, 11, 1.0), "was ended by signal 11"),
        (Exit(137, 9, 1.0), "was killed (SIGKILL"),
        (None, "killed together with its keeper"),
    ],
)
def test_an_end_while_serving_says_how(exit_, says, revision):
    cause = causes.of_end(log("ok"), exit_, revision, was_ready=True)
    assert cause.code == "CrashLoopBackOff"
    assert says in cause.message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "did not begin within 310 s"),
        (log("slow_init"), "init() in score.py had not returned after 310 s"),
        (log("ok"), "was not ready after 310 s"),
    ],
)
def test_a_start_that_takes_too_long_says_where_it_stood(text, says, revision):
    cause = causes.of_start_timeout(text, revision)
    assert cause.code == "StartTimedOut"
    assert says in cause.message


def test_a_start_that_took_too_long_for_a_known_reason_says_the_reason(revision):
    assert causes.of_start_timeout(log("worker_killed"), revision).code == "PodOutOfMemory"


def test_loading_is_seen_in_the_log():
    assert causes.is_loading(log("slow_init"))
    assert not causes.is_loading("[INFO] Starting gunicorn 27.0.1\n")


def test_silence_and_gone_sockets_are_told_apart():
    assert "for 95 s" in causes.of_silence("", 95.0, refused=False).message
    assert "sockets are gone" in causes.of_silence("", 95.0, refused=True).message


def test_a_missing_interpreter_is_the_environments_fault(revision):
    text = "slipway: /environments/e/bin/python could not be started: [Errno 2] No such file"
    cause = causes.of_end(text, Exit(127, 0, 1.0), revision, was_ready=False)
    assert cause.code == "EnvironmentBroken"
    assert a_revision().environment.location in cause.message

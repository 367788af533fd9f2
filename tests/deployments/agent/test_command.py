"""What a shim is told to start: local address only, Azure's variables, and nothing of the agent's."""

from dataclasses import replace
from pathlib import Path

import pytest

from deployments.agent import command
from deployments.types import EnvironmentSpec, ModelSpec
from tests.deployments.agent.conftest import a_revision

WORK = Path("/cluster/replicas/diabetes-r1-abcde/work")


def build(revision, **outer: str):
    return command.build(
        revision,
        replica="diabetes-r1-abcde",
        run=3,
        silence=92.0,
        work=WORK,
        staged=Path("/cluster/revisions/x"),
        cgroups=[],
        outer=outer,
    )


def with_variables(**variables: str):
    return a_revision(environment=EnvironmentSpec("e" * 64, "/environments/e", variables))


def option(told, name: str) -> str:
    return told["command"][told["command"].index(name) + 1]


def test_it_listens_where_its_shim_says_and_nowhere_else(revision):
    told = build(revision)
    assert not {"-b", "--bind"} & set(told["command"])
    assert told["command"][0] == "/environments/e/bin/python"
    assert told["cwd"] == str(WORK / "app")


def test_the_agents_own_environment_stays_out(revision):
    told = build(revision, SLIPWAY_SECRET_KEY="s", DATABASE_URL="d", HOME="/root", TZ="Asia/Tokyo")
    environment = told["environment"]
    assert environment["TZ"] == "Asia/Tokyo"
    assert environment["HOME"] == str(WORK / "home")
    assert not {"SLIPWAY_SECRET_KEY", "DATABASE_URL"} & environment.keys()


def test_one_model_is_its_own_folder_and_several_are_the_root(revision):
    assert (
        build(revision)["environment"]["AZUREML_MODEL_DIR"] == "/cluster/revisions/x/models/ridge/1"
    )
    two = replace(revision, models=(ModelSpec("ridge", 1, ()), ModelSpec("lasso", 2, ())))
    assert build(two)["environment"]["AZUREML_MODEL_DIR"] == "/cluster/revisions/x/models"


@pytest.mark.parametrize(
    ("given", "concurrency", "workers"),
    [(None, 1, "1"), (None, 4, "4"), ("3", 4, "3"), ("3", 1, "1"), ("0", 2, "2"), ("many", 2, "2")],
)
def test_workers_are_the_variable_else_the_concurrency_and_never_more(given, concurrency, workers):
    variables = {} if given is None else {"WORKER_COUNT": given}
    told = build(replace(with_variables(**variables), concurrency=concurrency))
    assert option(told, "-w") == told["environment"]["WORKER_COUNT"] == workers


def test_a_worker_is_not_killed_while_it_may_still_start_or_score(revision):
    assert option(build(revision), "--timeout") == "340"
    slow = replace(revision, scoring_timeout_ms=900_000)
    assert option(build(slow), "--timeout") == "930"
    assert option(build(with_variables(WORKER_TIMEOUT="1000")), "--timeout") == "1000"


def test_a_persons_variables_reach_the_script_but_move_nothing_of_ours():
    told = build(with_variables(MODE="fast", AML_APP_ROOT="/etc", SERVER_PORT="80"))
    assert told["environment"]["MODE"] == "fast"
    assert told["environment"]["AML_APP_ROOT"] == str(WORK / "app")
    assert told["environment"]["SERVER_PORT"] == "5001"


def test_requests_are_taken_one_at_a_time_in_each_worker_whatever_gunicorn_is_told():
    told = build(with_variables(GUNICORN_CMD_ARGS="--worker-class gthread --threads 8"))
    assert (option(told, "--worker-class"), option(told, "--threads")) == ("sync", "1")


def test_the_gate_refuses_what_no_worker_can_take_but_not_what_is_meant_to_wait(revision):
    four = replace(revision, concurrency=4, max_request_wait_ms=700)
    assert build(four)["gate"] == {
        "workers": 4,
        "refuse": True,
        "wait": 0.7,
        "hold": 48.0,
        "silence": 92.0,
    }
    fewer = replace(with_variables(WORKER_COUNT="2"), concurrency=4)
    assert build(fewer)["gate"]["refuse"] is False

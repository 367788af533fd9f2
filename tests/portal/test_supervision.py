"""The supervisor's configuration, and the supervisor itself."""

import configparser
import sys
import time
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class

from portal.supervision import (
    Program,
    Supervisor,
    included,
    of_cluster,
    programs,
    render,
    render_cluster,
)


def _parsed(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    return parser


def _all(**changes: object) -> tuple[Program, ...]:
    values: dict = {
        "python": "/venv/bin/python",
        "checkout": Path("/srv/slipway"),
        "bind": "127.0.0.1",
        "port": 8000,
        "redis_socket": Path("/srv/var/run/redis.sock"),
        "own_redis": True,
    }
    return programs(**{**values, **changes})


def test_all_processes_of_the_design_are_there_and_come_back_when_they_die():
    config = _parsed(render(_all(), checkout=Path("/c"), run=Path("/r"), logs=Path("/l")))
    for name in ("redis", "web", "worker-1", "worker-2", "controller", "agent", "router"):
        assert config[f"program:{name}"]["autorestart"] == "true"


def test_every_command_takes_the_arguments_it_is_given():
    commands = get_commands()
    given = [program.command[2:] for program in _all() if "manage.py" in program.command[1]]
    assert len(given) == 5
    for name, *arguments in given:
        parser = load_command_class(commands[name], name).create_parser("manage.py", name)
        parser.parse_args(arguments)  # leaves with an error where it does not know one


def test_a_clusters_programs_have_its_name_its_kind_and_its_ports():
    made = of_cluster("docks", "docker", python="/p", checkout=Path("/c"), port=8082, tls_port=8083)
    commands = get_commands()
    for program in made:
        name, *arguments = program.command[2:]
        taken = load_command_class(commands[name], name).create_parser("manage.py", name)
        given = taken.parse_args(arguments)
        assert (given.cluster, given.kind) == ("docks", "docker")
    assert [program.name for program in made] == ["agent-docks", "router-docks"]
    assert (given.port, given.tls_port) == (8082, 8083)
    config = _parsed(render_cluster(made, logs=Path("/l")))
    assert config["program:router-docks"]["autostart"] == "true"


def test_redis_is_left_out_where_a_url_names_one():
    assert "redis" not in {program.name for program in _all(own_redis=False)}


def test_percent_signs_in_a_path_are_not_expanded():
    config = _parsed(render(_all(), checkout=Path("/100%"), run=Path("/r"), logs=Path("/l")))
    assert config["supervisord"]["directory"] == "/100%%"


def test_the_socket_is_for_its_owner_alone():
    config = _parsed(render(_all(), checkout=Path("/c"), run=Path("/r"), logs=Path("/l")))
    assert config["unix_http_server"]["chmod"] == "0600"


def test_where_no_supervisor_answers_there_is_no_pid(tmp_path: Path):
    assert Supervisor(tmp_path).pid() is None
    (tmp_path / "supervisord.sock").write_text("left over")
    assert Supervisor(tmp_path).pid() is None


@pytest.mark.daemons
def test_a_real_supervisor_starts_tells_and_stops(tmp_path: Path):
    import subprocess

    sleep = (sys.executable, "-c", "import time; time.sleep(600)")
    wanted = (Program("sleeper", sleep, first=True), Program("later", sleep))
    config = tmp_path / "supervisord.conf"
    config.write_text(render(wanted, checkout=tmp_path, run=tmp_path, logs=tmp_path))
    daemon = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord", "-n", "-c", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        supervisor = Supervisor(tmp_path)
        deadline = time.monotonic() + 60
        while supervisor.states().get("sleeper") != "RUNNING":
            assert time.monotonic() < deadline, supervisor.states()
            time.sleep(0.1)
        assert supervisor.states()["later"] == "STOPPED"
        supervisor.start_all()
        while supervisor.states()["later"] != "RUNNING":
            assert time.monotonic() < deadline, supervisor.states()
            time.sleep(0.1)
        assert supervisor.pid() == daemon.pid

        # a cluster that comes and goes while it runs
        comes = included(tmp_path) / "docks.conf"
        comes.parent.mkdir()
        comes.write_text(render_cluster((Program("agent-docks", sleep),), logs=tmp_path))
        supervisor.take_in()
        supervisor.take_in()  # nothing is new: nothing happens
        while supervisor.states().get("agent-docks") != "RUNNING":
            assert time.monotonic() < deadline, supervisor.states()
            time.sleep(0.1)
        comes.unlink()
        supervisor.take_in()
        assert set(supervisor.states()) == {"sleeper", "later"}

        supervisor.shutdown()
        daemon.wait(timeout=60)
        assert supervisor.pid() is None
    finally:
        if daemon.poll() is None:
            daemon.kill()
            daemon.wait()

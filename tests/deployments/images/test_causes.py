"""What an Engine, a registry or an installer says becomes a cause a person can act on."""

import pytest

from deployments.images import builder_script, causes
from deployments.images.references import Reference, image_path, parse


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (
            "manifest for host/base:9 not found: manifest unknown: manifest unknown",
            causes.NOT_FOUND,
        ),
        ("pull access denied for x, repository does not exist or may require", causes.NOT_FOUND),
        ("Head http://host/v2/: no basic auth credentials", causes.DENIED),
        ("unauthorized: authentication required", causes.DENIED),
        ("dial tcp 127.0.0.1:5000: connect: connection refused", causes.REGISTRY_AWAY),
        (
            "Get https://host/v2/: x509: certificate signed by unknown authority",
            causes.REGISTRY_AWAY,
        ),
        ("write /var/lib/docker/tmp: no space left on device", causes.DISK_FULL),
        ("something new", "EnvironmentBuildFailed"),
    ],
)
def test_a_pull_that_fails_is_told(said: str, code: str) -> None:
    failure = causes.of_pull(said, "host/base:9", "host")
    assert failure.code == code
    assert failure.temporary is (code == causes.REGISTRY_AWAY)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("denied: requested access to the resource is denied", causes.DENIED),
        ("unauthorized: authentication required", causes.DENIED),
        ("dial tcp 127.0.0.1:5000: connect: connection refused", causes.REGISTRY_AWAY),
        ("received unexpected HTTP status: 503 Service Unavailable", causes.REGISTRY_AWAY),
        ("no space left on device", causes.DISK_FULL),
    ],
)
def test_a_push_that_fails_is_told(said: str, code: str) -> None:
    assert causes.of_push(said, "host/slipway/env", "host").code == code


def test_a_docker_step_that_fails_is_named_with_its_last_line() -> None:
    lines = ["Step 1/3 : FROM x AS steps", " ---> 1", "Step 2/3 : RUN make", "make: no rule"]
    failure = causes.of_steps("The command '/bin/sh -c make' returned a non-zero code: 2", lines)
    assert failure.code == causes.STEP_FAILED
    assert failure.message == (
        "The docker step 'RUN make' ended with exit code 2. Its last line: make: no rule"
    )


def test_a_step_that_wants_a_file_is_told_what_to_do() -> None:
    said = "COPY failed: file not found in build context"
    assert "ADD with an address" in causes.of_steps(said, ["Step 2/2 : COPY a b"]).message


@pytest.mark.parametrize(
    ("code", "lines", "said"),
    [
        (builder_script.NO_PYTHON, [], "has no Python"),
        (builder_script.NO_PIP, [], "has no pip"),
        (builder_script.NO_SERVER, ["ModuleNotFoundError: flask"], "ModuleNotFoundError: flask"),
        (builder_script.NO_MICROMAMBA, [], "SLIPWAY_MICROMAMBA_URL"),
        (builder_script.CONDA_FAILED, ["error    nothing provides nmpy"], "no nmpy"),
        (
            builder_script.CONDA_FAILED,
            ["    └─ nmpy   does not exist (perhaps a typo"],
            "no nmpy that",
        ),
        (builder_script.CONDA_FAILED, ["    └─ nmpy =* * does not exist (perhaps"], "no nmpy that"),
        (
            builder_script.CONDA_FAILED,
            ["  ├─ nmpy 99.0**  does not exist (perhaps"],
            "no nmpy that",
        ),
        (builder_script.CONDA_FAILED, ["      nmpy >=1,<2 * does not exist (perh"], "no nmpy that"),
        (137, [], "out of memory"),
        (1, ["error: No space left on device (os error 28)"], "disk of the Docker Engine is full"),
    ],
)
def test_a_script_that_ends_badly_is_told(code: int, lines: list[str], said: str) -> None:
    assert said in causes.of_script(code, lines, "uv").message


def test_a_misspelt_package_is_told_as_for_a_virtual_environment() -> None:
    line = (
        "ERROR: Could not find a version that satisfies the requirement scikit-lern==1.5 "
        "(from versions: none)"
    )
    failure = causes.of_script(1, [line], "pip")
    assert failure.message == "pip could not find scikit-lern==1.5: did you mean scikit-learn?"
    unknown = causes.of_script(1, [line.replace("scikit-lern", "zzqx-nothing")], "pip")
    assert unknown.message.endswith("Check its name and the index.")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("python:3.11-slim", Reference("docker.io", "python", "3.11-slim")),
        ("bitnami/python", Reference("docker.io", "bitnami/python")),
        ("127.0.0.1:5000/base/python:3.11", Reference("127.0.0.1:5000", "base/python", "3.11")),
        ("localhost/pause:1", Reference("localhost", "pause", "1")),
        ("r.example.com/a/b@sha256:00", Reference("r.example.com", "a/b", "", "sha256:00")),
    ],
)
def test_references_are_taken_apart_as_docker_does(text: str, expected: Reference) -> None:
    assert parse(text) == expected
    assert str(parse(text)) == text


def test_images_are_kept_under_the_registrys_repository() -> None:
    assert (image_path("slipway/"), image_path("")) == ("slipway/env", "env")

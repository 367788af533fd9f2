"""Why a container did not start or is gone, in words a person can act on."""

from dataclasses import replace

import pytest

from deployments.agent import causes
from deployments.types import ContainerSpec, EnvironmentSpec, Exit
from tests.deployments.agent.conftest import a_revision

IMAGE = "registry.example.com/slipway/env:abc"
REVISION = replace(a_revision(), environment=EnvironmentSpec("e" * 64, IMAGE))
OWN = replace(REVISION, container=ContainerSpec("own.example.com/thing:1", 8000))


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("manifest unknown: manifest unknown", "deploy again"),
        ("unauthorized: authentication required", "under Registries"),
        ("dial tcp 10.0.0.9:443: connect: connection refused", "must reach that registry"),
    ],
)
def test_an_image_that_cannot_be_pulled_is_named_with_what_to_do(words, hint):
    cause = causes.of_pull(words, REVISION)
    assert cause.code == "ImagePullBackOff"
    assert IMAGE in cause.message
    assert hint in cause.message
    assert cause.evidence == words


def test_an_image_by_id_is_nowhere_else():
    revision = replace(REVISION, environment=EnvironmentSpec("e" * 64, "sha256:" + "a" * 64))
    assert "built anew" in causes.of_pull("the Engine does not have it", revision).message


def test_a_full_disk_of_the_engine_is_told_as_one():
    words = "write /var/lib/docker/tmp: no space left on device"
    assert causes.of_pull(words, REVISION).code == "DiskFull"


@pytest.mark.parametrize(
    ("words", "revision", "code", "says"),
    [
        (
            'exec: "python": executable file not found in $PATH',
            REVISION,
            "EnvironmentBroken",
            "`python`",
        ),
        ('exec: "/serve": no such file or directory', OWN, "EnvironmentBroken", "its own program"),
        (
            'could not select device driver "" with capabilities: [[gpu]]',
            REVISION,
            "RunContainerError",
            "GPU",
        ),
        ("something else.", REVISION, "RunContainerError", "something else."),
    ],
)
def test_what_the_engine_cannot_start_is_told_in_its_words(words, revision, code, says):
    said = causes.NOT_STARTED + words
    cause = causes.of_end(said, Exit(127, 0, 1.0, said), revision, was_ready=False)
    assert cause.code == code
    assert says in cause.message


def test_a_container_that_somebody_removed_is_no_crash_of_the_script():
    cause = causes.of_end(causes.REMOVED, None, REVISION, was_ready=True)
    assert cause.code == "ContainerRemoved"


def test_the_kernels_word_on_memory_goes_before_all_others():
    cause = causes.of_end("Traceback", Exit(137, 9, 1.0, oom=True), REVISION, was_ready=True)
    assert cause.code == "PodOutOfMemory"

"""From submitting to Healthy on a Docker cluster of a whole Slipway: worker, controller, agent, router."""

import json
import os
import subprocess
import sys

import pytest
from django.conf import settings

from tests.deployments.images.conftest import CA
from tests.docker.engines import BASE, ENGINE, docker

pytestmark = [pytest.mark.docker, pytest.mark.timeout(280)]


def test_an_image_is_built_once_and_serves_what_is_deployed_after_it():
    done = subprocess.run(
        [
            sys.executable,
            "bench/docker_deployments.py",
            *("--json", "--rounds", "1", "--together", "2"),
        ],
        cwd=settings.CHECKOUT,
        env={
            **os.environ,
            "SLIPWAY_DOCKER_HOST": ENGINE,
            "SLIPWAY_BASE_IMAGE": BASE,
            "SLIPWAY_BUILD_NETWORK": "host",
            "SLIPWAY_BUILD_CA_BUNDLE": CA if os.path.exists(CA) else "",  # noqa: PTH110
        },
        capture_output=True,
        text=True,
        timeout=270,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    # the first one waited for its image, the others found it
    assert figures["cached_median_seconds"] < figures["first_seconds"]
    assert len(figures["at_once_seconds"]) == 2
    # its environment was deleted at the end
    mark = f"label=slipway.environment={figures['environment']}"
    assert docker("images", "-aq", "--filter", mark) == ""

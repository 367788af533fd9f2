"""An environment with conda packages becomes an image, on a real Engine.

micromamba itself is a stand-in here, served as the real one is: it takes the same arguments, asks its
channel, and makes a Python where it is told to. What conda's own solver does is not what is tried.
"""

import http.server
import io
import tarfile
import threading
from collections.abc import Callable, Iterator

import docker
import pytest

from deployments.environments.changes import create_environment
from deployments.errors import SlipwayError, TemporaryError
from deployments.images import attempt
from deployments.images.builds import ensure_image
from deployments.images.engines import Place
from deployments.types import EngineSpec
from tests.deployments.images.conftest import BASE, ENGINE
from tests.ports import free_port

pytestmark = [
    pytest.mark.docker,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(230),
    pytest.mark.usefixtures("without_tool"),
]

HERE = Place(EngineSpec(ENGINE), runs_there=True)
CONDA = (
    "channels: [conda-forge, defaults]\ndependencies:\n  - python=3.11\n  - numpy=1.26.4=py311_0\n"
)
STAND_IN = b"""#!/bin/sh
set -eu
[ "$1 $2 $3 $4 $5" = "create --yes --quiet --no-rc -p" ] || { echo "error: arguments: $*"; exit 2; }
prefix=$6 file=$8
python3 - "$MAMBA_CHANNEL_ALIAS/conda-forge/linux-64/repodata.json" <<'END' || exit 1
import sys, urllib.request
try:
    urllib.request.urlopen(sys.argv[1], timeout=5)
except OSError as error:
    sys.exit(f"error    libmamba Download error: {error}")
END
if grep -q nowhere "$file"; then
  echo "error    libmamba Could not solve for environment specs"
  echo "    The following package could not be installed"
  echo "      numpi-nowhere =* * does not exist (perhaps a typo or a missing channel)."
  exit 1
fi
python3 -m venv "$prefix"
mkdir -p "$prefix/conda-meta"
cp "$file" "$prefix/asked.yml"
echo '{"name": "numpy", "version": "1.26.4", "license": "BSD-3-Clause"}' >"$prefix/conda-meta/numpy-1.json"
"""


@pytest.fixture
def without_tool(engine: docker.DockerClient, builds: None) -> Iterator[None]:
    """The stand-in must not be there before, nor stay in the cache of builds."""

    def clear() -> None:
        engine.containers.run(
            BASE,
            ["sh", "-c", "rm -f /cache/tools/micromamba-*"],
            user="0:0",
            volumes={attempt.CACHE_VOLUME: {"bind": "/cache"}},
            remove=True,
        )

    clear()
    yield
    clear()


@pytest.fixture
def channel(env: Callable[..., None]) -> Iterator[list[str]]:
    """Serves the stand-in and an empty channel; the paths that were asked for."""
    asked: list[str] = []
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:bz2") as archive:
        info = tarfile.TarInfo("bin/micromamba")
        info.size, info.mode = len(STAND_IN), 0o755
        archive.addfile(info, io.BytesIO(STAND_IN))

    class Channel(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = packed.getvalue() if self.path.startswith("/micromamba") else b"{}"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Channel) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        env_now = {"micromamba_url": url + "/micromamba/{platform}", "conda_alias": url}
        env(**env_now)
        yield asked
        server.shutdown()
        thread.join()


def test_conda_packages_and_pip_packages_are_in_one_image(
    engine: docker.DockerClient, channel: list[str], tidy: Callable[[str], None]
) -> None:
    environment = create_environment(
        None, name="both", conda_yaml=CONDA, pip_requirements="six==1.17.0"
    )
    tidy(environment.hash)
    lines: list[str] = []
    build = ensure_image(environment, HERE, log=lines.append)
    assert channel[0].startswith("/micromamba/linux-")
    assert channel[1] == "/conda-forge/linux-64/repodata.json"
    assert "Fetching micromamba." in lines
    assert "#   conda numpy=1.26.4=py311_0" in build.dockerfile
    said = engine.containers.run(
        build.reference,
        ["sh", "-c", "cat /opt/slipway/asked.yml; python -c 'import six, sys; print(sys.prefix)'"],
        read_only=True,
        remove=True,
        network_disabled=True,
    ).decode()
    assert "- conda-forge\n  - defaults\n" in said  # in the order that was written
    assert "'numpy=1.26.4=py311_0'" in said
    assert said.strip().endswith("/opt/slipway")
    assert build.sbom is not None
    listed = {item["purl"].partition("?")[0] for item in build.sbom["components"] if "purl" in item}
    assert {"pkg:conda/numpy@1.26.4", "pkg:pypi/six@1.17.0"} <= listed


def test_a_channel_that_is_away_and_a_package_that_is_nowhere_are_told_apart(
    channel: list[str], tidy: Callable[[str], None], env: Callable[..., None]
) -> None:
    nowhere = create_environment(
        None, name="nowhere", conda_yaml="dependencies: [numpi-nowhere]\n", pip_requirements=""
    )
    tidy(nowhere.hash)
    with pytest.raises(SlipwayError, match="have no numpi-nowhere that fits") as refused:
        ensure_image(nowhere, HERE, log=lambda line: None)
    assert refused.value.code == "EnvironmentBuildFailed"
    env(conda_alias=f"http://127.0.0.1:{free_port()}")
    away = create_environment(None, name="away", conda_yaml=CONDA, pip_requirements="")
    tidy(away.hash)
    with pytest.raises(TemporaryError, match="could not reach a conda channel") as unreached:
        ensure_image(away, HERE, log=lambda line: None)
    assert unreached.value.code == "PackageIndexUnreachable"


def test_micromamba_that_cannot_be_fetched_is_said_to_be_what_is_missing(
    tidy: Callable[[str], None], env: Callable[..., None]
) -> None:
    env(micromamba_url=f"http://127.0.0.1:{free_port()}/micromamba")
    environment = create_environment(None, name="none", conda_yaml=CONDA, pip_requirements="")
    tidy(environment.hash)
    with pytest.raises(TemporaryError, match="SLIPWAY_MICROMAMBA_URL") as unreached:
        ensure_image(environment, HERE, log=lambda line: None)
    assert unreached.value.code == "PackageIndexUnreachable"

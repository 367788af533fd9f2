"""A real Docker Engine for tests: the one that is there, an image to run on it, and one of a test's own."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

BASE = os.environ.get("SLIPWAY_TEST_BASE_IMAGE", "127.0.0.1:5000/base/python:3.11")
ENGINE = os.environ.get("SLIPWAY_DOCKER_HOST", "unix:///var/run/docker.sock")
IMAGE = "slipway-tests/scoring:1.5.1"
OWN_IMAGE = "slipway-tests/own:1"
_DOCKERFILE = f"FROM {BASE}\nRUN pip install --no-cache-dir azureml-inference-server-http==1.5.1\n"
# Serves by itself on 8000: another program, other paths.
_OWN = f"""\
FROM {BASE}
RUN mkdir /srv/own && printf '%s\\n' \\
 'import http.server, os' \\
 'class Own(http.server.BaseHTTPRequestHandler):' \\
 '    def do_GET(self):' \\
 '        self.answer(200 if self.path in ("/alive", "/ready") else 404, b"up")' \\
 '    def do_POST(self):' \\
 '        body = self.rfile.read(int(self.headers["Content-Length"]))' \\
 '        self.answer(200 if self.path.startswith("/predict") else 404, b"own " + body)' \\
 '    def answer(self, status, body):' \\
 '        self.send_response(status)' \\
 '        self.send_header("Content-Length", str(len(body)))' \\
 '        self.end_headers()' \\
 '        self.wfile.write(body)' \\
 'print("own server begins", flush=True)' \\
 'http.server.ThreadingHTTPServer(("", 8000), Own).serve_forever()' \\
 > /srv/own/serve.py
USER app
CMD ["python", "/srv/own/serve.py"]
"""


def docker(*arguments: str, engine: str = ENGINE, given: str | None = None) -> str:
    """The command's output. Raises CalledProcessError."""
    done = subprocess.run(
        ["docker", "-H", engine, *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
        input=given,
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
    )
    return done.stdout.strip()


def ensure_image(tag: str = IMAGE) -> str:
    """Built once a machine."""
    if not docker("images", "-q", tag):
        text = _OWN if tag == OWN_IMAGE else _DOCKERFILE
        docker("build", "--network=host", "-q", "-t", tag, "-", given=text)
    return tag


def belongings(engine: str = ENGINE) -> dict[str, set[str]]:
    """What stands on an Engine, of anybody."""
    return {
        "containers": set(docker("ps", "-aq", "--no-trunc", engine=engine).split()),
        "volumes": set(docker("volume", "ls", "-q", engine=engine).split()),
        "networks": set(docker("network", "ls", "-q", "--no-trunc", engine=engine).split()),
    }


class OwnEngine:
    """A dockerd of a test's own, which may be stopped and started without anybody else noticing.

    It has a bridge of its own: told `--bridge=none`, a dockerd deletes `docker0`, the other Engine's. Made
    with a disk's size in MiB, it keeps its data on a tmpfs of that size. Needs root and dockerd.
    """

    def __init__(self, *, disk_mib: int | None = None) -> None:
        if os.geteuid() != 0 or shutil.which("dockerd") is None:
            pytest.skip("a second Engine needs root and dockerd")
        self.root = Path(tempfile.mkdtemp(prefix="dockerd-"))
        self.url = f"unix://{self.root}/docker.sock"
        self.process: subprocess.Popen[bytes] | None = None
        number = os.getpid() % 250 + 1  # tests run side by side, one Engine a process at most
        self._bridge = f"slipway{number}"
        self._data = self.root / "data"
        self._data.mkdir()
        if disk_mib is not None:
            self._mount(f"size={disk_mib}m")
        _run("ip", "link", "add", self._bridge, "type", "bridge")
        self.address = f"198.18.{number}.1"  # this machine's, and not loopback
        _run("ip", "addr", "add", f"{self.address}/24", "dev", self._bridge)

    def start(self, *more: str) -> None:
        """`more` are options of dockerd's."""
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    "dockerd", "--host", self.url,
                    "--data-root", str(self._data),
                    "--exec-root", str(self.root / "exec"),
                    "--pidfile", str(self.root / "pid"),
                    "--containerd-namespace", f"slipway-{self._bridge}",
                    "--containerd-plugins-namespace", f"slipway-{self._bridge}-plugins",
                    # the other Engine's rules are left alone
                    "--bridge", self._bridge,
                    "--iptables=false", "--ip6tables=false", "--ip-masq=false",
                    *more,
                ],
                stdout=log, stderr=log,
            )  # fmt: skip
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                docker("info", engine=self.url)
                return
            except subprocess.CalledProcessError:
                time.sleep(0.2)
        raise AssertionError(f"dockerd did not come up:\n{(self.root / 'log').read_text()[-4000:]}")

    def load(self, tag: str) -> None:
        """Copy an image from the machine's Engine."""
        with subprocess.Popen(
            ["docker", "-H", ENGINE, "save", tag], stdout=subprocess.PIPE
        ) as save:
            subprocess.run(
                ["docker", "-H", self.url, "load", "-q"],
                stdin=save.stdout, check=True, capture_output=True, timeout=300,
            )  # fmt: skip

    def resize_disk(self, disk_mib: int) -> None:
        self._mount(f"remount,size={disk_mib}m")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=60)
            self.process = None

    def remove(self) -> None:
        """Everything of it: mounts that a killed run has left behind, too."""
        if self.process is not None:  # an Engine that goes leaves the bridges of its networks
            for container in docker("ps", "-aq", engine=self.url).split():
                docker("rm", "-f", container, engine=self.url)
            docker("network", "prune", "-f", engine=self.url)
        self.stop()
        _run("ip", "link", "delete", self._bridge)
        places = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for place in reversed(places):
            if place.startswith(str(self.root)):
                _run("umount", "-l", place)
        shutil.rmtree(self.root, ignore_errors=True)

    def _mount(self, options: str) -> None:
        _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self._data))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)

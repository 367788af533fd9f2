"""A real image registry of a test's own, stopped by its pid; with `password` it wants one."""

import shutil
import subprocess
import time
from pathlib import Path

import httpx

PROGRAM = shutil.which("docker-registry")
USER, PASSWORD = "pusher", "right horse"
# bcrypt of the above
_HTPASSWD = f"{USER}:$2b$05$Ui28LrQwzq7GHFLUfJesfeFAAJA/F22zk6zlra3zOjiMQuLu3aCAG\n"


class RegistryServer:
    """On 127.0.0.1. What it holds outlives `stop` and `start`."""

    def __init__(self, folder: Path, port: int, *, password: bool = False) -> None:
        self.address = f"127.0.0.1:{port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        auth = ""
        if password:
            (folder / "htpasswd").write_text(_HTPASSWD)
            auth = f"auth: {{htpasswd: {{realm: tests, path: {folder}/htpasswd}}}}\n"
        (folder / "registry.yml").write_text(
            f"version: 0.1\nlog: {{level: error}}\n{auth}"
            f"storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: {self.address}}}\n"
        )

    def start(self) -> None:
        assert PROGRAM is not None
        self._process = subprocess.Popen(
            [PROGRAM, "serve", str(self._folder / "registry.yml")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                httpx.get(f"http://{self.address}/v2/", timeout=2)
                return
            except httpx.HTTPError:
                assert time.monotonic() < deadline, "the registry did not start"
                time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def copies(self, path: str) -> list[str]:
        """Tags under a path; none where the registry does not know it."""
        answer = httpx.get(f"http://{self.address}/v2/{path}/tags/list", timeout=5)
        return (answer.json().get("tags") or []) if answer.status_code == 200 else []

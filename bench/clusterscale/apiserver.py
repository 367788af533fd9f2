"""An API server of the bench's own: etcd and kube-apiserver as processes, with nothing beside them."""

import base64
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from bench.routing.processes import BenchError, free_port
from deployments.errors import SlipwayError
from deployments.kube import access
from deployments.kube.api import Kube

_UP_SECONDS = 90


class Server:
    """Ends with `stop`. `folder` is empty, and the caller's to remove."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.folder = folder
        self._port, self._client, self._peer = free_port(), free_port(), free_port()
        self._token = secrets.token_hex(16)
        self._apiserver, self._etcd = _binary(binaries, "kube-apiserver"), _binary(binaries, "etcd")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._credentials()
        self.kubeconfig = folder / "kubeconfig"

    def start(self) -> None:
        client, peer = f"http://127.0.0.1:{self._client}", f"http://127.0.0.1:{self._peer}"
        self._run(
            "etcd", self._etcd, "--data-dir", self.folder / "etcd",
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", f"default={peer}", "--unsafe-no-fsync",
            "--quota-backend-bytes", str(8 * 2**30), "--log-level", "warn",
        )  # fmt: skip
        self.serve()

    def serve(self) -> float:
        """Start the API server (again). Seconds until it was ready."""
        began = time.monotonic()
        at = self.folder
        self._run(
            "kube-apiserver", self._apiserver, f"--etcd-servers=http://127.0.0.1:{self._client}",
            f"--secure-port={self._port}", "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1", f"--tls-cert-file={at / 'api.crt'}",
            f"--tls-private-key-file={at / 'api.key'}", f"--token-auth-file={at / 'tokens.csv'}",
            "--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={at / 'api.key'}",
            f"--service-account-signing-key-file={at / 'api.key'}",
            # nobody makes the default account of a namespace here
            "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
            "--endpoint-reconciler-type=none", "--event-ttl=1h", "--profiling=false",
        )  # fmt: skip
        kube = Kube(access.parse(self.kubeconfig.read_text()), seconds=2)
        while time.monotonic() - began < _UP_SECONDS:
            try:
                kube.get("/api/v1/namespaces/default")
                return time.monotonic() - began
            except SlipwayError:
                if self._processes["kube-apiserver"].poll() is not None:
                    break
                time.sleep(0.1)
        log = (at / "kube-apiserver.log").read_text(errors="replace")
        raise BenchError(f"kube-apiserver did not come up: {log[-2000:]}")

    def kill(self) -> None:
        """The API server's process alone, as a fault would."""
        process = self._processes["kube-apiserver"]
        process.kill()
        process.wait()

    def figures(self) -> dict[str, Any]:
        """Resident MiB and CPU seconds of each."""
        found = {}
        for name, process in self._processes.items():
            seen = psutil.Process(process.pid)
            found[name.replace("-", "_")] = {
                "rss_mib": round(seen.memory_info().rss / 2**20),
                "cpu_seconds": round(sum(seen.cpu_times()[:2]), 1),
            }
        return found

    def stop(self) -> None:
        for process in reversed(self._processes.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def _run(self, name: str, *command: object) -> None:
        with (self.folder / f"{name}.log").open("ab") as said:
            self._processes[name] = subprocess.Popen(
                list(map(str, command)), stdout=said, stderr=said, start_new_session=True
            )

    def _credentials(self) -> None:
        key, certificate = self.folder / "api.key", self.folder / "api.crt"
        subprocess.run(
            [
                "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "7",
                "-subj", "/CN=kube-apiserver", "-addext", "subjectAltName=IP:127.0.0.1",
                "-keyout", key, "-out", certificate,
            ],
            check=True, capture_output=True,
        )  # fmt: skip
        tokens = self.folder / "tokens.csv"
        tokens.touch(mode=0o600)
        tokens.write_text(f"{self._token},admin,admin,system:masters\n")
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "scale",
            "contexts": [{"name": "scale", "context": {"cluster": "scale", "user": "admin"}}],
            "users": [{"name": "admin", "user": {"token": self._token}}],
            "clusters": [
                {
                    "name": "scale",
                    "cluster": {
                        "server": f"https://127.0.0.1:{self._port}",
                        "certificate-authority-data": base64.b64encode(
                            certificate.read_bytes()
                        ).decode(),
                    },
                }
            ],
        }
        file = self.folder / "kubeconfig"
        file.touch(mode=0o600)
        file.write_text(yaml.safe_dump(config))


def _binary(folder: Path, name: str) -> Path:
    """There, or on the path."""
    if (there := folder / name).is_file():
        return there
    found = shutil.which(name)
    if found is None:
        raise BenchError(f"There is no {name} in {folder} or on the path.")
    return Path(found)

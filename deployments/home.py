"""Where everything that is kept on disk stands: one folder, `SLIPWAY_HOME`.

Paths only; nothing is created or read here but by `ensure`. The tree:

    db.sqlite3  secret_key  admin_password        the portal's own
    store/                                        content by SHA-256 (`sha256/ab/abcdef...`)
    uploads/                                      request bodies on their way into the store
    environments/<hash>/                          virtual environments of process clusters
    logs/{deployments,environments,local,processes}/   append-only logs
    logs/pods/<cluster>/<service>/<pod>/          what pods said (`deployments.pod_logs`)
    clusters/<name>/                              a process cluster: its source of truth
    local-runs/<id>/                              what a local run works in; gone when it ends
    run/                                          sockets and pid files
"""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

# A unix socket's path may hold 107 bytes. The longest name here is `haproxy-<24>.sock`, and HAProxy binds
# each with `.<pid>.tmp` behind it first.
_LONGEST_RUN_FOLDER = 55


@dataclass(frozen=True, slots=True)
class Home:
    """Paths under one root. `root` is absolute."""

    root: Path

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def uploads(self) -> Path:
        return self.root / "uploads"

    @property
    def environments(self) -> Path:
        return self.root / "environments"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def clusters(self) -> Path:
        return self.root / "clusters"

    @property
    def secret_key(self) -> Path:
        return self.root / "secret_key"

    @property
    def admin_password(self) -> Path:
        """Holds the one-time administrator password (mode 600) until its first change."""
        return self.root / "admin_password"

    @property
    def run(self) -> Path:
        """Sockets and pid files. A root too long for a socket's path gets a short folder elsewhere."""
        inside = self.root / "run"
        if len(os.fsencode(inside)) <= _LONGEST_RUN_FOLDER:
            return inside
        key = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"slipway-{os.getuid()}-{key}"

    @property
    def redis_socket(self) -> Path:
        return self.run / "redis.sock"

    def cluster(self, name: str) -> Path:
        return self.clusters / name

    def deployment_log(self, deployment: int) -> Path:
        return self.logs / "deployments" / f"{deployment}.jsonl"

    def environment_log(self, environment_hash: str) -> Path:
        return self.logs / "environments" / f"{environment_hash}.jsonl"

    def local_run(self, run: int) -> Path:
        return self.root / "local-runs" / str(run)

    def local_log(self, run: int) -> Path:
        return self.logs / "local" / f"{run}.jsonl"

    @property
    def pod_logs(self) -> Path:
        return self.logs / "pods"

    def ensure(self) -> None:
        """Create the folders, readable by their owner only where they hold secrets or sockets."""
        # the database is in it; a folder that a person made keeps the mode it was given
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.store, self.uploads, self.environments, self.clusters):
            folder.mkdir(exist_ok=True)
        for name in ("deployments", "environments", "processes"):
            (self.logs / name).mkdir(parents=True, exist_ok=True)
        self.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.run.stat().st_uid != os.getuid():
            raise PermissionError(f"{self.run} belongs to another user; set SLIPWAY_HOME elsewhere")

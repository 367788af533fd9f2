"""What containers of an Engine on another machine have instead of folders and sockets of this one.

Files stand in volumes of that Engine. A volume is named after what is in it, filled through the Engine's own
connection, and counts as whole only when a program there has read every file again and found its SHA-256;
what a killed agent left half-made is filled anew. A container's `run.json` and keys are put into a volume of
its own, which goes with it.

    slipway-<id>-run-<hash>    inside.py  gate*.py  gunicorn_conf.py   -> /slipway/runtime, read-only
    slipway-<id>-rev-<hash>    app/  models/                           -> /slipway/staged, read-only
    (of the container's own)   run.json  replica.pem  router.pem       -> /slipway/told

A request goes there over TLS. Each run of a replica has two keys of its own: the replica shows one, and
whoever comes must show the other, which this machine's `front` alone has. So the port on which that Engine's
machine publishes a replica is of no use to anybody else on its network, nor to another replica.
"""

import contextlib
import hashlib
import json
import os
import tarfile
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deployments.agent import command
from deployments.agent.front import AUTHORITY, PAIR
from deployments.codec import to_json
from deployments.engine.containers import Asked, Container, Engine
from deployments.errors import Conflict, SlipwayError, TemporaryError, Unavailable
from deployments.types import RevisionSpec

FILLS = "slipway.fills"  # of the containers that only fill a volume: the cluster's id
_MARK = ".whole"
_LIST = ".files.json"
_PIECE = 2**20
_VERIFY_SECONDS = 600.0
_UNUSED_SECONDS = 600.0  # for which a volume stays that no replica has
_YEARS = timedelta(days=3650)
_RUN_TMPFS = "size=1m,mode=700,uid={0},gid={0}"
# Run by the image's Python: every file as it was meant to be, then the mark. Its own words go to the cause.
_VERIFY = f"""
import hashlib, json, os, sys
root, digest = "/fill", sys.argv[1]
for name, wanted in json.load(open(root + "/{_LIST}")).items():
    found = hashlib.sha256()
    with open(root + "/" + name, "rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    if found.hexdigest() != wanted:
        sys.exit(name + " did not arrive as it was sent")
with open(root + "/{_MARK}", "w") as mark:
    mark.write(digest)
    mark.flush()
    os.fsync(mark.fileno())
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """A key and its own certificate, in PEM."""

    key: str
    certificate: str


class Far:
    """One Engine elsewhere, for one cluster. Safe to use from several threads."""

    def __init__(self, engine: Engine, cluster: str, labels: Mapping[str, str]) -> None:
        self.engine = engine
        self._cluster, self._labels = cluster, dict(labels)
        self._swept = False  # of what an agent before left
        self._whole: set[str] = set()  # volumes that were looked at, or filled, by this agent
        self._unused: dict[str, float] = {}  # volume -> since when no replica has it (monotonic)
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    # ---- files --------------------------------------------------------------------------------

    def prepare(self, revision: RevisionSpec, image: str, runtime: Path, staged: Path) -> None:
        """Have both volumes there and whole. Raises SlipwayError, OSError."""
        self._ensure(self._runtime(runtime), image, runtime)
        self._ensure(self._staged(revision), image, staged)

    def _runtime(self, runtime: Path) -> str:
        return f"slipway-{self._cluster[:6]}-run-{runtime.name.rpartition('-')[2]}"

    def _staged(self, revision: RevisionSpec) -> str:
        return f"slipway-{self._cluster[:6]}-rev-{content_key(revision)}"

    def _ensure(self, volume: str, image: str, folder: Path) -> None:
        with self._lock:
            self._sweep()
            lock = self._locks.setdefault(volume, threading.Lock())
        with lock:
            if volume in self._whole and volume in self.engine.volumes(self._cluster):
                return
            self._fill(volume, image, folder)
            self._whole.add(volume)

    def _fill(self, volume: str, image: str, folder: Path) -> None:
        folders, files = _content(folder)
        listed = {name: _sha256(path) for name, path in files.items()}
        text = json.dumps(listed, sort_keys=True).encode()
        digest = hashlib.sha256(text).hexdigest()
        self.engine.create_volume(volume, self._labels)
        name = f"{volume}-fill"
        self.engine.remove(name)  # of an agent that was killed
        container = self.engine.create(
            Asked(
                name=name,
                image=image,
                labels={FILLS: self._cluster},
                entrypoint=("python", "-I", "-S", "-c", _VERIFY, digest),
                user="0:0",
                folder="/",
                volumes={volume: ("/fill", True)},
                read_only=False,
            )
        )
        try:
            if self.engine.read(container, f"/fill/{_MARK}") == digest.encode():
                return
            self.engine.fill(container, "/fill", _archive(folders, files, {_LIST: text}))
            end, said = self.engine.run_made(container, deadline=_VERIFY_SECONDS)
            if end.code != 0:
                words = (end.error or said).strip()[-500:] or f"exit code {end.code}"
                raise TemporaryError(
                    f"Files could not be brought to the Engine's machine: {words}.", evidence=said
                )
        finally:
            self.engine.remove(container)

    def _sweep(self) -> None:
        """Once, before anything is filled."""
        if not self._swept:
            remove_left_over(self.engine, self._cluster)
            self._swept = True

    def tidy(self, runtime: Path, revisions: Collection[RevisionSpec]) -> None:
        """Remove volumes that no replica has had for a while. Raises SlipwayError."""
        with self._lock:
            self._sweep()
        now = time.monotonic()
        kept = {self._runtime(runtime), *map(self._staged, revisions)}
        named = f"slipway-{self._cluster[:6]}-"
        self._unused = {
            volume: self._unused.get(volume, now)
            for volume in self.engine.volumes(self._cluster)
            if volume.startswith(named) and volume not in kept
        }
        for volume, since in self._unused.items():
            if now - since >= _UNUSED_SECONDS:
                self._whole.discard(volume)
                with contextlib.suppress(Conflict):  # a container that is going has it still
                    self.engine.remove_volume(volume)

    # ---- containers ---------------------------------------------------------------------------

    def asked(
        self, plain: Asked, revision: RevisionSpec, runtime: Path, entry: tuple[str, ...], user: int
    ) -> Asked:
        inside = command.INSIDE
        return replace(
            plain,
            entrypoint=entry,
            user=f"{user}:{user}",
            folder="/",
            volumes={
                self._runtime(runtime): (str(inside / "runtime"), False),
                self._staged(revision): (str(inside / "staged"), False),
            },
            fresh=(str(inside / "told"),),
            tmpfs={**plain.tmpfs, str(inside / "run"): _RUN_TMPFS.format(user)},
            publish=(command.FAR_PORT,),
        )

    def tell(self, container: str, told: dict[str, Any], user: int, front: Path) -> None:
        """Give a container that was not started yet what it starts, and keys to both sides.

        Raises SlipwayError, OSError.
        """
        replica, router = make_pair("replica"), make_pair("router")
        texts = {
            "run.json": json.dumps(told).encode(),
            command.FAR_PAIR: (replica.key + replica.certificate).encode(),
            command.FAR_AUTHORITY: router.certificate.encode(),
        }
        self.engine.fill(
            container, str(command.INSIDE / "told"), _archive((), {}, texts, user, 0o600)
        )
        for name, text in (
            (PAIR, router.key + router.certificate),
            (AUTHORITY, replica.certificate),
        ):
            _write_secret(front / name, text)

    def target(self, container: str) -> tuple[str, int]:
        """Where one that runs is reached. Raises SlipwayError."""
        found: Container = self.engine.address(container)
        port = found.ports.get(command.FAR_PORT)
        if port is None:
            raise Unavailable(f"Container {container[:12]} ended before it could be reached.")
        return self.engine.spec.host, port


def remove_left_over(engine: Engine, cluster: str) -> None:
    """Containers that a killed agent left while it filled a volume. Raises SlipwayError."""
    for container in engine.left_over(FILLS, cluster):
        engine.remove(container)


def content_key(revision: RevisionSpec) -> str:
    """Of a revision's project folder and models alone: another size or limit needs no new files."""
    text = json.dumps(
        [revision.source.sha256, [to_json(model) for model in revision.models]], sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def make_pair(name: str) -> Pair:
    """A new key, and a certificate that nobody signed: the other side knows this very one."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"slipway {name}")])
    now = datetime.fromtimestamp(time.time(), UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clocks differ
        .not_valid_after(now + _YEARS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
    )


def _write_secret(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    beside.replace(path)


def _content(folder: Path) -> tuple[list[str], dict[str, Path]]:
    """Folders and plain files below a folder by their relative names. Raises FileNotFoundError."""
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    folders = [name for name, path in found.items() if path.is_dir()]
    return folders, {name: path for name, path in found.items() if path.is_file()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _archive(
    folders: Iterable[str],
    files: Mapping[str, Path],
    texts: Mapping[str, bytes],
    user: int = 0,
    mode: int = 0o644,
) -> Iterator[bytes]:
    """A tar stream, in the order of its arguments. A file that can be run stays so."""
    for name in folders:
        info = tarfile.TarInfo(name)
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        yield info.tobuf(tarfile.PAX_FORMAT)
    for name, path in files.items():
        info = tarfile.TarInfo(name)
        found = path.stat()
        info.size, info.mode = found.st_size, 0o755 if found.st_mode & 0o111 else mode
        yield info.tobuf(tarfile.PAX_FORMAT)
        left = info.size
        with path.open("rb") as file:
            while left:
                piece = file.read(min(_PIECE, left))
                if not piece:
                    raise SlipwayError(f"{name} became shorter while it was sent.")
                left -= len(piece)
                yield piece
        yield bytes(-info.size % tarfile.BLOCKSIZE)
    for name, text in texts.items():
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.uid, info.gid = len(text), mode, user, user
        yield info.tobuf(tarfile.PAX_FORMAT) + text + bytes(-len(text) % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)

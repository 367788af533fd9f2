"""A Kubernetes cluster of a test's own: a control plane and three nodes, whose daemons may be killed.

The cluster of KUBECONFIG belongs to whoever started it, and other tests use it; nothing there is ever killed.
Its programs are used to start another one here: each node is a `Machine` with a kubelet, a containerd and a
kube-proxy of its own, all on one bridge. This machine reaches pods and Services by a route through the first
node. Each node says that it has four cores, whatever this machine has.

    10.N.0.1      control plane     10.N.0.11-13   nodes        10.N.1-3.0/24  pods
    10.N.127.1    this machine      10.N.128.0/17  Services
"""

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from deployments.errors import SlipwayError
from deployments.kube.api import Kube
from deployments.types import KubeSpec
from tests.kubernetes import cluster, node_files, reach
from tests.kubernetes.images import REGISTRY
from tests.kubernetes.machines import Daemon, Machine, forget_cgroups, wire

NODES = (1, 2, 3)
GRACE_SECONDS = 18  # without a word of its kubelet a node is taken for gone
_CORES = 4
_PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
_OTHERS = ("etcd", "containerd", "runc", "ctr", "unshare", "nsenter", "ip", "iptables", "openssl")
# where kubelets, runtimes and plugins keep things, whatever they are told
_OWN = ("/run", "/var/lib/kubelet", "/var/lib/cni", "/var/log")


def programs() -> Path:
    """Where Kubernetes' programs are; skips the test where they, or what else is needed, are not."""
    cluster.spec()
    given = os.environ.get("SLIPWAY_TEST_KUBE_BIN")
    folder = Path(given) if given else Path(os.environ["KUBECONFIG"]).parent / "bin"
    missing = [name for name in _PROGRAMS if not (folder / name).is_file()]
    if missing:
        pytest.skip(
            f"no {', '.join(missing)} in SLIPWAY_TEST_KUBE_BIN or in bin/ beside KUBECONFIG: there is no "
            "cluster whose daemons may be killed"
        )
    missing = [name for name in _OTHERS if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        why = f"no {', '.join(missing)} here" if missing else "this is not root"
        pytest.skip(f"a cluster whose daemons may be killed cannot be started: {why}")
    return folder


class Node:
    """One machine that runs pods."""

    def __init__(self, machine: Machine, port: str) -> None:
        self.machine, self.name, self.port = machine, machine.name, port
        self.containerd: Daemon
        self.kubelet: Daemon
        self.proxy: Daemon


class OwnCluster:
    """All of it. `apiserver`, `controllers`, `scheduler` and nodes' daemons may be killed and started."""

    def __init__(self, binaries: Path, folder: Path, net: int) -> None:
        self.binaries, self.folder, self.net = binaries, folder, net
        self.id = f"slipway{net}"
        self.machines: list[Machine] = []
        self.nodes: list[Node] = []
        self.config = folder / "kubeconfig"
        self._token = secrets.token_hex(16)
        self._server = f"https://10.{net}.0.1:6443"
        self._authority = folder / "pki" / "apiserver.crt"
        self._registry = reach.Passage(f"10.{net}.127.1", 5000, REGISTRY)
        self.apiserver: Daemon
        self.controllers: Daemon
        self.scheduler: Daemon
        self.kube: Kube

    def start(self, images: Sequence[str]) -> None:
        """With nodes that have these images."""
        self.plane = self._machine("plane")
        self._connect()
        self._control()
        for number in NODES:
            self.nodes.append(self._node(number))
        self._fill(images)
        self._answers()
        for number, node in zip(NODES, self.nodes, strict=True):
            self._join(number, node)
        cluster.until(lambda: len(self.ready()) == len(self.nodes), 90)
        # a node is called ready before its pods reach Services
        cluster.until(lambda: all(self._served(node) for node in self.nodes), 90)

    def _served(self, node: Node) -> bool:
        return f"10.{self.net}.128.1/32" in node.machine.run("iptables-save", "-t", "nat")

    def ready(self) -> list[str]:
        """Nodes that Kubernetes believes to be well."""
        return [
            item["metadata"]["name"]
            for item in self.kube.items("/api/v1/nodes").items
            for said in item["status"].get("conditions", ())
            if said["type"] == "Ready" and said["status"] == "True"
        ]

    def spec(self) -> KubeSpec:
        return KubeSpec(self._server, self._authority.read_text(), self._token)

    def end(self) -> None:
        if hasattr(self, "kube"):
            self.kube.close()
        self._registry.shut()
        for machine in reversed(self.machines):
            machine.end()
        # connections that wait for an answer would keep it for minutes
        subprocess.run(["ip", "link", "delete", self.id], capture_output=True, check=False)
        forget_cgroups(self.id)

    # ---- its parts ------------------------------------------------------------------------------

    def _machine(self, name: str, own: tuple[str, ...] = ()) -> Machine:
        made = Machine(name, self.folder, own)
        self.machines.append(made)
        made.set("ipv4/ip_forward", "1")
        return made

    def _connect(self) -> None:
        """A bridge for the nodes, and a cable to this machine; the registry is passed on to."""
        net, plane = self.net, self.plane
        wire(plane, None, "home", self.id)
        _here("ip", "address", "add", f"10.{net}.127.1/30", "dev", self.id)
        _here("ip", "link", "set", self.id, "up")
        _here("ip", "route", "add", f"10.{net}.0.0/16", "via", f"10.{net}.127.2")
        plane.run("ip", "link", "add", "br0", "type", "bridge")
        for name, address in (("br0", f"10.{net}.0.1/24"), ("home", f"10.{net}.127.2/30")):
            plane.run("ip", "address", "add", address, "dev", name)
            plane.run("ip", "link", "set", name, "up")
        self._registry.open(self.folder)

    def _control(self) -> None:
        """What decides and remembers. Its certificate is of its own making."""
        net, pki, plane = self.net, self._authority.parent, self.plane
        pki.mkdir()
        key, tokens = pki / "accounts.key", pki / "tokens.csv"
        tokens.write_text(f"{self._token},admin,admin,system:masters\n")
        _here("openssl", "genrsa", "-out", str(key), "2048")
        self.config.write_text(node_files.kubeconfig(self._server, self._authority, self._token))
        etcd, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
        plane.daemon(
            "etcd", "etcd", "--data-dir", plane.folder / "etcd", "--unsafe-no-fsync",
            "--listen-client-urls", etcd, "--advertise-client-urls", etcd,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", f"default={peer}",
        )  # fmt: skip
        self.apiserver = plane.daemon(
            "kube-apiserver", self.binaries / "kube-apiserver", f"--etcd-servers={etcd}",
            f"--bind-address=10.{net}.0.1", f"--advertise-address=10.{net}.0.1",
            f"--cert-dir={pki}", f"--token-auth-file={tokens}", "--authorization-mode=RBAC",
            f"--service-cluster-ip-range=10.{net}.128.0/17", "--allow-privileged=true",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
            "--kubelet-preferred-address-types=InternalIP",
        )  # fmt: skip
        cluster.until(lambda: self._authority.exists() and self._authority.stat().st_size, 60)
        common = (
            f"--kubeconfig={self.config}",
            "--leader-elect=false",
            "--port=0",
            "--secure-port=0",
        )
        self.scheduler = plane.daemon("kube-scheduler", self.binaries / "kube-scheduler", *common)
        self.controllers = plane.daemon(
            "kube-controller-manager", self.binaries / "kube-controller-manager", *common,
            f"--service-account-private-key-file={key}", f"--root-ca-file={self._authority}",
            f"--node-monitor-grace-period={GRACE_SECONDS}s",
        )  # fmt: skip
        self.kube = Kube(self.spec())

    def _answers(self) -> None:
        """The API server does, and what ended for want of it runs."""

        def looked() -> bool:
            try:
                return bool(self.kube.get("/api/v1/namespaces/default/endpoints/kubernetes"))
            except SlipwayError:
                return False

        cluster.until(looked, 60)
        for daemon in (self.controllers, self.scheduler):
            if not daemon.runs():
                daemon.start()

    def _node(self, number: int) -> Node:
        """A machine on the bridge, without anything that runs on it."""
        net, plane = self.net, self.plane
        machine = self._machine(f"node-{number}", _OWN)
        made = Node(machine, f"node{number}")
        wire(plane, machine, made.port, "eth0")
        plane.run("ip", "link", "set", made.port, "master", "br0", "up")
        machine.run("ip", "address", "add", f"10.{net}.0.{10 + number}/24", "dev", "eth0")
        machine.run("ip", "link", "set", "eth0", "up")
        machine.run("ip", "route", "add", "default", "via", f"10.{net}.0.1")
        ways = [(f"10.{net}.{other}.0/24", other) for other in NODES]
        for pods, other in ways:
            if other != number:
                machine.run("ip", "route", "add", pods, "via", f"10.{net}.0.{10 + other}")
        services = [(f"10.{net}.128.0/17", 1)] if number == 1 else []
        for pods, _ in [ways[number - 1], *services]:
            plane.run("ip", "route", "add", pods, "via", f"10.{net}.0.{10 + number}")
        shown = machine.folder / "cores"
        node_files.cores(shown, _CORES)
        machine.bind(shown, "/sys/devices/system/node")
        return made

    def _fill(self, images: Sequence[str]) -> None:
        """Pull images once; what one runtime unpacked is the others' too (hard links)."""
        registry = f"http://10.{self.net}.127.1:5000"
        hosts = self.folder / "hosts" / REGISTRY
        hosts.mkdir(parents=True)
        (hosts / "hosts.toml").write_text(
            f'[host."{registry}"]\ncapabilities = ["pull", "resolve"]\n'
        )
        for number, node in zip(NODES, self.nodes, strict=True):
            node_files.runtime(node.machine.folder, images[0], REGISTRY, registry)
            node_files.network(node.machine.folder, f"10.{self.net}.{number}.0/24")
        first, *others = self.nodes
        self._runtime(first)
        there = first.machine.folder / "containerd"
        for image in images:
            first.machine.run(
                "ctr", "-a", f"{there}.sock", "-n", "k8s.io", "images", "pull",
                "--hosts-dir", str(hosts.parent), image,
            )  # fmt: skip
        first.containerd.kill()
        for node in others:
            here = node.machine.folder / "containerd"
            _here("cp", "-al", str(there), str(here))
            for changing in there.rglob("*.db"):
                name = changing.relative_to(there)
                _here("cp", "--remove-destination", str(changing), str(here / name))
            self._runtime(node)
        first.containerd.start()

    def _runtime(self, node: Node) -> None:
        folder = node.machine.folder
        node.containerd = node.machine.daemon(
            "containerd", "containerd", "--config", folder / "containerd.toml"
        )
        cluster.until(lambda: (folder / "containerd.sock").exists(), 30)

    def _join(self, number: int, node: Node) -> None:
        folder = node.machine.folder
        node_files.kubelet(folder, f"/{self.id}/{node.name}")
        node_files.proxy(folder, node.name, self.config)
        node.kubelet = node.machine.daemon(
            "kubelet", self.binaries / "kubelet", f"--kubeconfig={self.config}",
            f"--config={folder / 'kubelet.json'}", "--container-runtime=remote",
            f"--container-runtime-endpoint=unix://{folder}/containerd.sock",
            f"--hostname-override={node.name}", f"--node-ip=10.{self.net}.0.{10 + number}",
        )  # fmt: skip
        node.proxy = node.machine.daemon(
            "kube-proxy", self.binaries / "kube-proxy", f"--config={folder / 'proxy.json'}"
        )


@contextmanager
def own_cluster(images: Sequence[str]) -> Iterator[OwnCluster]:
    """One that is gone afterwards, whatever becomes of the test. Pods are held by the first image."""
    binaries = programs()
    folder = Path(tempfile.mkdtemp(prefix="slipway-nodes-"))
    made = OwnCluster(binaries, folder, _free())
    try:
        made.start(images)
        yield made
    finally:
        made.end()
        _here("rm", "-rf", str(folder))


def _free() -> int:
    """A second byte of addresses that nothing here has."""
    told = _here("ip", "route") + _here("ip", "-o", "address")
    return next(net for net in range(140, 250) if f"10.{net}." not in told)


def _here(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout

"""The files that nodes of a test's own are started with."""

import json
import os
from pathlib import Path

from tests.docker.engines import docker
from tests.kubernetes.images import REGISTRY

_BASE = os.environ.get("SLIPWAY_TEST_BASE", "127.0.0.1:5000/base/python:3.11")


def pause() -> str:
    """An image of what holds a pod's namespaces."""
    tag = f"{REGISTRY}/slipway-tests/pause:1"
    docker("build", "-q", "-t", tag, "-", given=f'FROM {_BASE}\nENTRYPOINT ["sleep", "infinity"]\n')
    docker("push", "-q", tag)
    return tag


def kubeconfig(server: str, authority: Path, token: str) -> str:
    where = {"server": server, "certificate-authority": str(authority)}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "own",
            "contexts": [{"name": "own", "context": {"cluster": "own", "user": "admin"}}],
            "users": [{"name": "admin", "user": {"token": token}}],
            "clusters": [{"name": "own", "cluster": where}],
        }
    )


def cores(folder: Path, count: int) -> None:
    """What a kubelet counts cores by."""
    node = folder / "node0"
    for core in range(count):
        topology = node / f"cpu{core}" / "topology"
        topology.mkdir(parents=True)
        (topology / "core_id").write_text(f"{core}\n")
        (topology / "physical_package_id").write_text("0\n")
        (node / f"cpu{core}" / "online").write_text("1\n")
    memory = [line for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line]
    (node / "meminfo").write_text(f"Node 0 {memory[0]}\n")


def runtime(folder: Path, sandbox: str, registry: str, address: str) -> None:
    (folder / "containerd.toml").write_text(f"""version = 2
root = "{folder}/containerd"
state = "{folder}/containerd.run"
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{sandbox}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".registry.mirrors."{registry}"]
    endpoint = ["{address}"]
""")


def network(folder: Path, pods: str) -> None:
    ranges = {"ranges": [[{"subnet": pods}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {
        "type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True,
        "ipam": {"type": "host-local", **ranges},
    }  # fmt: skip
    (folder / "net.d").mkdir()
    (folder / "net.d" / "10-pods.conflist").write_text(
        json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]})
    )


def kubelet(folder: Path, group: str) -> None:
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    asked = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        # others' pods have groups at the usual place, and would be taken for leftovers
        "cgroupRoot": group,
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "readOnlyPort": 0,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "resolvConf": str(folder / "resolv.conf"),
        "nodeStatusUpdateFrequency": "2s",
        "nodeLeaseDurationSeconds": 8,  # renewed four times in that
        "evictionHard": {"memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }
    (folder / "kubelet.json").write_text(json.dumps(asked))


def proxy(folder: Path, name: str, config: Path) -> None:
    asked = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "iptables": {"masqueradeAll": True},  # what comes by a node goes back by it
        "hostnameOverride": name,
        "clientConnection": {"kubeconfig": str(config)},
        "conntrack": {"maxPerCore": 0},
    }
    (folder / "proxy.json").write_text(json.dumps(asked))

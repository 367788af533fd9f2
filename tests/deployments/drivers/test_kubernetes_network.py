"""What network a cluster has, as far as its objects say."""

import pytest

from deployments.drivers import kubernetes_network as networks
from deployments.types import KubeSettings


def node(name="a", cidr="", **spec):
    address = {"type": "InternalIP", "address": "192.0.2.7"}
    given = {**({"podCIDR": cidr, "podCIDRs": [cidr]} if cidr else {}), **spec}
    return {"metadata": {"name": name}, "spec": given, "status": {"addresses": [address]}}


def pod(name, namespace="kube-system", ip="", host=False, args=()):
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"hostNetwork": host, "containers": [{"command": list(args)}]},
        "status": {"podIP": ip},
    }


def seen(nodes=(), pods=(), maps=(), services=(), service_range="", also=()):
    return networks.network(nodes, pods, maps, services, service_range, also)


@pytest.mark.parametrize(
    ("name", "cni"),
    [
        ("calico-node-x7f2", "Calico"),
        ("canal-9xkq", "Canal (Calico on Flannel)"),
        ("cilium-5kq2x", "Cilium"),
        ("aws-node-2xk", "Amazon VPC CNI"),
        ("azure-cns-8dk", "Azure CNI"),
        ("kube-flannel-ds-1", "Flannel"),
        ("kindnet-77", "kindnet"),
    ],
)
def test_a_network_is_known_by_its_pods(name, cni):
    found = seen([node(cidr="10.0.0.0/24")], [pod(name)])
    assert (found.cni, found.cni_from, found.kubenet) == (cni, f"the pod kube-system/{name}", False)


def test_a_users_pod_of_that_name_is_no_network():
    assert seen([node()], [pod("calico-node-x", namespace="default")]).cni == ""


def test_kubenet_is_ranges_on_nodes_and_nobody_who_sees_to_them():
    assert seen([node(cidr="10.1.0.0/24")], [pod("kube-proxy-1")]).kubenet is True
    assert seen([node()], [pod("kube-proxy-1")]).kubenet is False
    assert networks.network([node(cidr="10.1.0.0/24")], None, None, None, "").kubenet is None


def test_pod_ranges_come_from_kubeadm_then_nodes_then_addresses():
    kubeadm = {
        "metadata": {"name": "kubeadm-config", "namespace": "kube-system"},
        "data": {
            "ClusterConfiguration": "networking:\n  podSubnet: 10.244.0.0/16\n  serviceSubnet: 10.9.0.0/16\n"
        },
    }
    found = seen([node(cidr="10.1.0.0/24")], maps=[kubeadm])
    assert (found.pods, found.services) == (("10.244.0.0/16",), ("10.9.0.0/16",))
    assert seen([node(cidr="10.1.0.0/24")]).pods == ("10.1.0.0/24",)
    pods = [pod("a", ip="10.88.0.4"), pod("b", ip="10.88.9.4"), pod("c", ip="192.0.2.7", host=True)]
    found = seen([node()], pods)
    assert (found.pods, found.pods_from) == (("10.88.0.0/16",), "the addresses of 2 pods")
    assert seen([node()], also=["10.88.0.4"]).pods_from == "the address of 1 pod"
    assert seen([node()]).pods == ()


def test_the_api_servers_word_on_services_comes_before_its_arguments():
    args = ["kube-apiserver", "--service-cluster-ip-range=10.7.0.0/16"]
    pods = [pod("kube-apiserver-a", args=args)]
    assert seen([node()], pods).services == ("10.7.0.0/16",)
    assert seen([node()], pods, service_range="10.96.0.0/16").services == ("10.96.0.0/16",)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (
            "provided IP is not in the valid range. The range of valid IPs is 10.96.0.0/16",
            "10.96.0.0/16",
        ),
        ("The range of valid IPs is fd00::/112", "fd00::/112"),
        ("services is forbidden", ""),
    ],
)
def test_a_refusals_range_is_read(words, found):
    assert networks.range_in(words) == found


def test_the_ports_name_every_registry_the_store_and_the_entrance():
    settings = KubeSettings(
        "models", service_type="NodePort", node_port=30080, blob_url="https://portal.example"
    )
    found = networks.ways(
        seen([node(cidr="10.1.0.0/24")], service_range="10.96.0.0/16"),
        settings,
        "https://10.0.0.1:6443",
        ["registry.example", "r.example:5000"],
        router_ports=(8080, 8443),
        peer_port=8405,
    )
    targets = [way.target for way in found]
    assert targets[0] == "10.0.0.1:6443"
    assert "registry.example:443" in targets
    assert "r.example:5000" in targets
    assert "portal.example:443" in targets
    assert "each node, 30080" in targets
    assert "each other (10.1.0.0/24), 8405" in targets
    assert any("10.96.0.0/16" in target for target in targets)

"""What does not fit a cluster, before it is submitted."""

import pytest

from deployments.services.config import DeploymentConfig
from deployments.services.fits import misfits, warnings
from deployments.types import Capacity, NodeCapacity


def cluster(*nodes: tuple[float, float, int]) -> Capacity:
    """Nodes as (cores, GiB, GPUs), all free."""
    return Capacity(
        1.0,
        tuple(
            NodeCapacity(f"n{i}", cpu, cpu, memory, memory, gpu, gpu)
            for i, (cpu, memory, gpu) in enumerate(nodes)
        ),
    )


SMALL = cluster((4, 14, 0), (2, 28, 0))


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        ({}, []),
        ({"cpu_cores": 4}, []),
        ({"cpu_cores": 4.1}, ["cpu_cores"]),
        ({"memory_gb": 28}, []),
        ({"memory_gb": 28.5}, ["memory_gb"]),
        ({"gpu_cores": 1}, ["gpu_cores"]),
        ({"cpu_cores": 5, "gpu_cores": 1}, ["gpu_cores", "cpu_cores"]),
    ],
)
def test_more_than_any_node_has_is_refused_by_field(values, fields):
    found = misfits(DeploymentConfig(**values), SMALL, "DevTest", "Standard_D3_v2")
    assert [item.field for item in found] == fields


@pytest.mark.parametrize(("gpus", "wrong"), [(1, False), (2, False), (3, True)])
def test_gpus_are_counted_on_one_node(gpus, wrong):
    capacity = cluster((4, 14, 2), (4, 14, 2))
    config = DeploymentConfig(gpu_cores=gpus)
    assert bool(misfits(config, capacity, "DevTest", "Standard_NC12s_v3")) is wrong


@pytest.mark.parametrize("purpose", ["FastProd", "DenseProd"])
def test_production_purposes_need_three_nodes_and_twelve_cores(purpose):
    def said(capacity):
        return [i.message for i in misfits(DeploymentConfig(), capacity, purpose, "x")]

    assert said(cluster(*[(4, 14, 0)] * 3)) == []
    assert said(cluster(*[(6, 14, 0)] * 2)) == [
        f"At least 3 machine(s) are required for cluster with purpose '{purpose}'. "
        "Available machine(s) : 2"
    ]
    assert said(cluster(*[(3.9, 14, 0)] * 3)) == [
        "Cluster should have at least 12 cores to operate."
    ]


def test_unknown_capacity_refuses_nothing():
    config = DeploymentConfig(cpu_cores=1000, gpu_cores=8, num_replicas=900)
    assert misfits(config, None, "FastProd", "x") == []
    assert warnings(config, None) == []


@pytest.mark.parametrize(("replicas", "warned"), [(60, False), (61, True)])
def test_a_minimum_beyond_the_room_is_a_warning(replicas, warned):
    # 40 by cpu on the first node, 20 on the second
    found = warnings(DeploymentConfig(num_replicas=replicas, memory_gb=0.1), SMALL)
    assert [item.field for item in found] == (["num_replicas"] if warned else [])

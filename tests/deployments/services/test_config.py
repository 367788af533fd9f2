"""Azure's names, defaults and rules of a deployment configuration."""

import json

import pytest

from deployments.errors import InvalidInput
from deployments.services.config import (
    NAMES,
    DeploymentConfig,
    from_azure_json,
    from_values,
    problems,
    replicas_needed,
    to_azure_json,
)
from deployments.types import Probe, Resources, Scaling


def fields_of(config: DeploymentConfig) -> list[str]:
    return [problem.field for problem in problems(config)]


def test_nothing_set_is_azures_defaults():
    config = DeploymentConfig()
    assert problems(config) == []
    assert config.to_scaling() == Scaling(
        autoscale=True, minimum=1, maximum=10, target_utilization=70, refresh_seconds=1
    )
    assert config.to_resources() == Resources(cpu=0.1, memory_gb=0.5)
    assert config.to_probe() == Probe()
    assert (config.max_request_wait_time, config.scoring_timeout_ms) == (500, 60_000)
    assert (config.auth_enabled, config.token_auth_enabled) == (True, False)


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({"num_replicas": 2}, []),
        ({"num_replicas": 1000}, []),
        ({"num_replicas": 1001}, ["num_replicas"]),
        ({"num_replicas": 0}, ["num_replicas"]),
        ({"autoscale_enabled": True, "num_replicas": 2}, ["num_replicas"]),
        ({"autoscale_enabled": False}, ["num_replicas"]),
        (
            {"autoscale_enabled": False, "num_replicas": 2, "autoscale_max_replicas": 3},
            ["autoscale_max_replicas"],
        ),
        (
            {"autoscale_enabled": None, "num_replicas": 2, "autoscale_refresh_seconds": 3},
            ["autoscale_refresh_seconds"],
        ),
        ({"autoscale_min_replicas": 3, "autoscale_max_replicas": 3}, []),
        (
            {"autoscale_min_replicas": 4, "autoscale_max_replicas": 3},
            ["autoscale_max_replicas"],
        ),
        # 11 is above the default maximum of 10
        ({"autoscale_min_replicas": 11}, ["autoscale_max_replicas"]),
        ({"autoscale_min_replicas": 0}, ["autoscale_min_replicas"]),
        ({"autoscale_target_utilization": 100}, []),
        ({"autoscale_target_utilization": 101}, ["autoscale_target_utilization"]),
        ({"autoscale_target_utilization": 0}, ["autoscale_target_utilization"]),
        ({"cpu_cores": 0.001}, []),
        ({"cpu_cores": 0}, ["cpu_cores"]),
        ({"memory_gb": -1}, ["memory_gb"]),
        ({"cpu_cores": 1, "cpu_cores_limit": 1}, []),
        ({"cpu_cores": 1, "cpu_cores_limit": 0.9}, ["cpu_cores_limit"]),
        ({"memory_gb": 1, "memory_gb_limit": 0.5}, ["memory_gb_limit"]),
        ({"gpu_cores": -1}, ["gpu_cores"]),
        ({"replica_max_concurrent_requests": 0}, ["replica_max_concurrent_requests"]),
        ({"max_request_wait_time": 0}, ["max_request_wait_time"]),
        ({"scoring_timeout_ms": 0}, ["scoring_timeout_ms"]),
        ({"period_seconds": 0}, ["period_seconds"]),
        ({"failure_threshold": 1}, []),
        ({"namespace": "team-a"}, []),
        ({"namespace": "a" * 63}, []),
        ({"namespace": "a" * 64}, ["namespace"]),
        ({"namespace": "-a"}, ["namespace"]),
    ],
)
def test_each_rule_names_its_field(values, wrong):
    assert fields_of(DeploymentConfig(**values)) == wrong


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_replicas", 1.5),
        ("num_replicas", True),
        ("num_replicas", "two"),
        ("cpu_cores", float("nan")),
        ("cpu_cores", float("inf")),
        ("auth_enabled", "yes"),
        ("autoscale", True),
    ],
)
def test_a_value_of_the_wrong_type_names_its_field(name, value):
    with pytest.raises(InvalidInput) as caught:
        from_values({name: value})
    assert caught.value.field == name


def test_what_an_update_leaves_out_stays():
    base = from_values({"cpu_cores": 2, "scoring_timeout_ms": 1000, "autoscale_max_replicas": 4})
    after = from_values({"memory_gb": 3}, base)
    assert (after.cpu_cores, after.scoring_timeout_ms, after.memory_gb) == (2, 1000, 3)
    assert after.autoscale_max_replicas == 4


def test_a_fixed_count_over_autoscaling_drops_its_limits():
    base = from_values({"autoscale_max_replicas": 4})
    after = from_values({"num_replicas": 2}, base)
    assert problems(after) == []
    assert after.to_scaling() == Scaling(autoscale=False, minimum=2, maximum=2)


def test_autoscaling_over_a_fixed_count_drops_the_count():
    base = from_values({"num_replicas": 2})
    after = from_values({"autoscale_enabled": True}, base)
    assert problems(after) == []
    assert after.to_scaling().autoscale is True


def test_none_takes_the_default_again():
    base = from_values({"cpu_cores": 2, "num_replicas": 3})
    after = from_values({"cpu_cores": None, "num_replicas": None}, base)
    assert (after.cpu_cores, after.num_replicas) == (0.1, None)


def test_a_file_of_azure_is_read_and_its_unknown_keys_are_named():
    text = json.dumps(
        {
            "computeType": "AKS",
            "autoScaler": {"autoscaleEnabled": True, "minReplicas": 2, "speed": 9},
            "containerResourceRequirements": {"cpu": 0.5, "memoryInGB": 1.0, "memoryInGBLimit": 2},
            "livenessProbeRequirements": {"initialDelaySeconds": 30},
            "keys": {"primaryKey": "p" * 20, "secondaryKey": "s" * 20},
            "maxQueueWaitMs": 250,
            "dataCollection": None,
            "colour": "blue",
        }
    )
    values, unknown = from_azure_json(text)
    assert values == {
        "autoscale_enabled": True,
        "autoscale_min_replicas": 2,
        "cpu_cores": 0.5,
        "memory_gb": 1.0,
        "memory_gb_limit": 2,
        "initial_delay_seconds": 30,
        "primary_key": "p" * 20,
        "secondary_key": "s" * 20,
        "max_request_wait_time": 250,
    }
    assert unknown == ["autoScaler.speed", "colour"]


def test_every_name_goes_through_azures_file_and_back():
    config = DeploymentConfig(
        autoscale_enabled=True,
        autoscale_min_replicas=2,
        autoscale_max_replicas=5,
        autoscale_target_utilization=50,
        autoscale_refresh_seconds=2,
        cpu_cores=1.5,
        cpu_cores_limit=2.0,
        memory_gb_limit=4.0,
        gpu_cores=1,
        namespace="ns",
        collect_model_data=True,
        enable_app_insights=True,
        token_auth_enabled=True,
    )
    values, unknown = from_azure_json(to_azure_json(config))
    assert unknown == []
    assert from_values(values) == config
    assert set(values) == set(NAMES) - {"num_replicas"}


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"computeType": "aci"}', '{"autoScaler": 3}', "null"]
)
def test_what_is_no_deployment_configuration_is_refused(text):
    with pytest.raises(InvalidInput) as caught:
        from_azure_json(text)
    assert caught.value.field == "deploymentconfig"


@pytest.mark.parametrize(
    ("rps", "seconds", "target", "concurrency", "replicas"),
    [
        (20, 10, 0.7, 1, 286),
        (7, 1, 0.7, 1, 10),
        (7.01, 1, 0.7, 1, 11),
        (20, 10, 0.7, 4, 72),
        (0.1, 0.1, 1.0, 1, 1),
    ],
)
def test_replicas_for_a_load(rps, seconds, target, concurrency, replicas):
    assert replicas_needed(rps, seconds, target, concurrency) == replicas


@pytest.mark.parametrize("target", [0, -1, 1.01, 70])
def test_a_target_that_is_no_share_is_refused(target):
    with pytest.raises(InvalidInput) as caught:
        replicas_needed(1, 1, target, 1)
    assert caught.value.field == "target"

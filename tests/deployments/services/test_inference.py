"""inferenceconfig.json in both of Azure's shapes."""

import json

import pytest
import yaml

from deployments.errors import InvalidInput
from deployments.services.inference import from_azure_json


def read(data):
    return from_azure_json(json.dumps(data))


def test_todays_shape():
    config, unknown = read(
        {
            "entryScript": "score.py",
            "sourceDirectory": "./source",
            "environment": {
                "name": "diabetes-env",
                "version": 3,
                "environmentVariables": {"LEVEL": 5},
                "docker": {
                    "baseImage": None,
                    "baseDockerfile": "# ours\nFROM python:3.11-slim AS base\nRUN pip list\n",
                    "shmSize": "2g",
                },
                "python": {
                    "userManagedDependencies": False,
                    "condaDependencies": {
                        "name": "env",
                        "dependencies": ["python=3.11", {"pip": ["numpy"]}],
                        "prefix": "/opt",
                    },
                },
                "inferencingStackVersion": "latest",
                "r": {},
            },
        }
    )
    assert config.entry_script == "score.py"
    assert config.source_directory == "./source"
    assert (config.environment_name, config.environment_version) == ("diabetes-env", "3")
    assert config.variables == {"LEVEL": "5"}
    assert config.base_image == "python:3.11-slim"
    assert config.docker_steps == "RUN pip list"
    assert yaml.safe_load(config.conda_yaml) == {
        "name": "env",
        "dependencies": ["python=3.11", {"pip": ["numpy"]}],
    }
    assert unknown == ["environment.python.condaDependencies.prefix", "environment.r"]
    assert len(config.notes) == 2


def test_the_older_flat_keys():
    config, unknown = read(
        {
            "entryScript": "score.py",
            "runtime": "python",
            "condaFile": "myenv.yml",
            "extraDockerfileSteps": "steps",
            "enableGpu": True,
            "cudaVersion": "10.0",
            "baseImage": "python:3.11",
            "speed": 1,
        }
    )
    assert (config.conda_file, config.docker_steps) == ("myenv.yml", "steps")
    assert config.base_image == "python:3.11"
    assert unknown == ["speed"]


@pytest.mark.parametrize("data", [[], {"environment": "x"}, {"entryScript": ["score.py"]}])
def test_what_cannot_be_understood_is_refused(data):
    with pytest.raises(InvalidInput) as caught:
        read(data)
    assert caught.value.field == "inferenceconfig"

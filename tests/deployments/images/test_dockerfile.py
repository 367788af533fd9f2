"""An environment becomes a plan, a Dockerfile and a builder's script."""

import subprocess

import pytest

from deployments.environments.definition import parse
from deployments.images import builder_script
from deployments.images.builder_script import BuildSettings, hide, script
from deployments.images.dockerfile import dockerfile, steps_stage
from deployments.images.layers import parse as parse_layers
from deployments.images.plan import ImagePlan, image_plan, needs_conda

BASE = "python:3.11-slim"
DIGEST = f"registry.example.com/base@sha256:{'d' * 64}"
SECRETS = BuildSettings(
    installer="uv",
    uv_version="0.1",
    index_url="https://user:index-word@pypi.example.com/simple",
    extra_index_urls=("https://user:extra-word@pypi.example.com/more",),
    https_proxy="http://user:proxy-word@proxy.example.com:3128",
    ca_pem="-----BEGIN CERTIFICATE-----\ncertificate-word\n-----END CERTIFICATE-----",
)


def plan(python: tuple[int, int] | None = (3, 11), **texts: str) -> ImagePlan:
    return image_plan(parse(**texts), default_base=BASE, python=python)


def written(made: ImagePlan) -> str:
    return dockerfile(made, builder="builder:1", environment_hash="f" * 64, version="9.9")


def test_the_base_images_digest_is_kept_and_the_docker_steps_follow_it() -> None:
    text = written(plan(base_image=DIGEST, docker_steps="run apt-get update\nENV A=1"))
    assert f"FROM {DIGEST} AS steps\nRUN apt-get update\nENV A=1\n" in text


def test_without_a_base_image_it_is_the_settings() -> None:
    assert steps_stage(plan()) == f"FROM {BASE} AS steps\n"


def test_the_image_runs_the_pinned_scoring_server_without_rights_and_says_what_it_is() -> None:
    text = written(plan(pip_requirements="numpy"))
    assert "#   azureml-inference-server-http==1.5.1\n#   numpy\n" in text
    assert "\nUSER 1000:1000\n" in text
    assert f'\nLABEL slipway.environment={"f" * 64} slipway.version="9.9"\n' in text
    assert "\nCOPY --from=builder:1 /opt/slipway /opt/slipway\n" in text


def test_packages_that_were_cut_into_layers_are_copied_layer_by_layer() -> None:
    layers = parse_layers("numpy=0123456789abcdef rest=fedcba9876543210")
    made = plan(pip_requirements="numpy")
    text = dockerfile(made, builder="b:1", environment_hash="f" * 64, version="9.9", layers=layers)
    copied = [line for line in text.splitlines() if line.startswith("COPY")]
    assert copied == [
        "COPY --from=b:1 /opt/slipway-layers/numpy /",
        "COPY --from=b:1 /opt/slipway-layers/rest /",
    ]
    assert 'LABEL slipway.layers="numpy=0123456789abcdef rest=fedcba9876543210"' in text


def test_it_holds_no_index_proxy_or_certificate() -> None:
    made = plan(pip_requirements="numpy")
    assert not any(word in written(made) for word in ("example.com", "word", "CERTIFICATE"))
    assert "index-word" in script(made, SECRETS)  # they go in there, through standard input


@pytest.mark.parametrize(
    ("conda", "python", "expected"),
    [
        ("", (3, 11), False),
        ("dependencies: [python=3.11]", (3, 11), False),
        ("dependencies: [python=3.11, pip, pip: [numpy]]", (3, 11), False),
        ("dependencies: [python=3.10]", (3, 11), True),  # another Python than the base image's
        ("dependencies: [python=3.11]", None, True),  # it has none
        ("dependencies: [numpy=1.26]", (3, 11), True),
        ("channels: [conda-forge]\ndependencies: [python=3.11, r-base]", (3, 11), True),
        ("dependencies: [azureml-defaults]", (3, 11), False),
    ],
)
def test_conda_is_used_where_it_is_needed(
    conda: str, python: tuple[int, int] | None, expected: bool
) -> None:
    made = plan(python, conda_yaml=conda)
    assert bool(made.conda) is expected
    assert made.problems == ()
    assert ("conda.yml" in script(made, SECRETS)) is expected


def test_a_look_at_the_base_image_is_spared_where_conda_brings_python() -> None:
    assert needs_conda(parse(conda_yaml="dependencies: [numpy]"))
    assert not needs_conda(parse(conda_yaml="dependencies: [python=3.11]"))


def test_conda_gets_its_channels_in_order_and_what_pip_needs() -> None:
    made = plan(conda_yaml="channels: [b, a]\ndependencies: [numpy=1.26=py311_0, pip: [six]]")
    assert made.channels == ("b", "a")
    assert set(made.conda) == {"numpy=1.26=py311_0", "pip", "python>=3.9,<3.13"}
    assert "six" in made.requirements


@pytest.mark.parametrize(
    ("python", "said"), [(None, "has no Python"), ((3, 8), "needs 3.9 or newer")]
)
def test_a_base_image_whose_python_will_not_do_is_a_problem(
    python: tuple[int, int] | None, said: str
) -> None:
    (problem,) = plan(python).problems
    assert said in problem.message
    assert problem.field == "base_image"


@pytest.mark.parametrize("installer", ["uv", "pip"])
@pytest.mark.parametrize("conda", ["", "dependencies: [numpy]"])
def test_the_script_is_one_a_shell_can_read(installer: str, conda: str) -> None:
    settings = BuildSettings(
        installer=installer,
        uv_version="0.1",
        index_url="https://u:it's $(odd)@example.com/",
        ca_pem="pem",
        micromamba_url="https://example.com/{platform}",
        conda_alias="https://example.com",
    )
    text = script(plan(conda_yaml=conda), settings)
    assert subprocess.run(["sh", "-n"], input=text, text=True).returncode == 0


def test_a_requirement_cannot_end_its_file_early() -> None:
    text = builder_script._file("x", "one\nSLIPWAY_END_OF_FILE\nrm -rf /")
    assert text.count("SLIPWAY_END_OF_FILE") == 2


def test_users_and_passwords_of_addresses_are_hidden_in_lines() -> None:
    line = "Looking in https://user:index-word@pypi.example.com/simple and proxy-word"
    assert hide(line, SECRETS) == "Looking in https://****@pypi.example.com/simple and ****"
    assert hide("plain a@b text", SECRETS) == "plain a@b text"

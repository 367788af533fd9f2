"""Equal meaning, equal hash; another meaning, another hash."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.environments.hashing import environment_hash
from deployments.errors import InvalidInput

CONDA = """\
name: diabetes
channels: [conda-forge, defaults]
dependencies:
  - python=3.11
  - numpy>=1.26,<3
  - pip
  - pip:
      - scikit-learn==1.9.1
      - azureml-defaults
"""


def of(conda: str = CONDA, pip: str = "", image: str = "", steps: str = "") -> str:
    return environment_hash(
        base_image=image, docker_steps=steps, conda_yaml=conda, pip_requirements=pip
    )


def test_a_hash_is_64_lower_case_hex_digits_and_stays_what_it_was() -> None:
    # the key of every cached image: a change here rebuilds every environment of every installation
    assert of() == "f091a4123491d9aa04fd16b2a99ac41e347967ed2ef1248d56853e688bfe2bf5"
    assert of("", "") == "f5d31a7272b5e297dc5edb4edd61dfa7d444c7413cba0cf0c43a411741b6c7f0"


@pytest.mark.parametrize(
    "other",
    [
        CONDA.replace("name: diabetes", "name: something-else"),
        CONDA.replace("name: diabetes\n", "prefix: /opt/conda/envs/diabetes\n"),
        "# made by hand\n" + CONDA.replace("- pip\n", "- pip  # needed below\n"),
        CONDA.replace("[conda-forge, defaults]", "\n  - conda-forge\n  - defaults"),
        CONDA.replace("[conda-forge, defaults]", "[conda-forge, defaults, conda-forge]"),
        CONDA.replace("numpy>=1.26,<3", "NumPy <3 , >= 1.26"),
        CONDA.replace("scikit-learn==1.9.1", "scikit_learn == 1.9.1"),
        CONDA.replace("  - pip\n", "").replace("  - python=3.11\n", "  - pip\n  - python=3.11\n"),
        CONDA.replace(
            "      - scikit-learn==1.9.1\n      - azureml-defaults\n",
            "      - azureml-defaults\n      - scikit-learn==1.9.1\n",
        ),
        CONDA.replace("\n", "\r\n"),
    ],
)
def test_what_means_the_same_in_conda_has_the_same_hash(other: str) -> None:
    assert other != CONDA
    assert of(other) == of()


@pytest.mark.parametrize(
    "other",
    [
        CONDA.replace("1.9.1", "1.9.2"),
        CONDA.replace("python=3.11", "python=3.12"),
        CONDA.replace("python=3.11", "python==3.11"),
        CONDA.replace("numpy>=1.26,<3", "numpy>=1.26"),
        CONDA.replace("conda-forge, defaults", "defaults, conda-forge"),
        CONDA.replace("- numpy>=1.26,<3", "- nvidia::numpy>=1.26,<3"),
        CONDA.replace("scikit-learn==1.9.1", "scikit-learn==1.9.1; python_version < '3.12'"),
        CONDA.replace("azureml-defaults", "azureml-defaults[extra]"),
        CONDA.replace("      - azureml-defaults\n", ""),
    ],
)
def test_what_means_something_else_in_conda_has_another_hash(other: str) -> None:
    assert of(other) != of()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("numpy==1.26\npandas", "# first\npandas  # a comment\n\nnumpy ==1.26"),
        ("Flask[Async,dotenv]>=2,<4", "flask[dotenv, async]<4,>=2"),
        (
            "six==1.17.0 \\\n  --hash=sha256:b --hash=sha256:a",
            "six==1.17.0 --hash=sha256:a --hash=sha256:b",
        ),
        ("-i https://x.example/simple\nsix", "--index-url=https://x.example/simple\nsix"),
        ('six; python_version<"3.12"', "six ; python_version < '3.12'"),
    ],
)
def test_what_means_the_same_in_pip_has_the_same_hash(one: str, other: str) -> None:
    assert of("", one) == of("", other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("numpy==1.26", "numpy==1.27"),
        ("numpy==1.26", "numpy>=1.26"),
        ("numpy", "numpy[all]"),
        ("six", "six ; python_version < '3.12'"),
        ("six @ https://x.example/a.whl", "six @ https://x.example/b.whl"),
        ("six", "--pre\nsix"),
        (
            "--extra-index-url https://a.example\n--extra-index-url https://b.example",
            "--extra-index-url https://b.example\n--extra-index-url https://a.example",
        ),
    ],
)
def test_what_means_something_else_in_pip_has_another_hash(one: str, other: str) -> None:
    assert of("", one) != of("", other)


def test_docker_steps_have_an_order_and_comments_do_not_count() -> None:
    steps = "RUN apt-get update\nENV A=1"
    assert of(steps=steps) == of(steps="# tools\n\n  run apt-get update\nenv A=1\n")
    assert of(steps=steps) != of(steps="ENV A=1\nRUN apt-get update")
    assert of(steps=steps) != of(steps="RUN apt-get update\nENV A=2")


def test_a_number_sign_inside_a_heredoc_is_content() -> None:
    assert of(steps="RUN <<EOF\n# one\nEOF") != of(steps="RUN <<EOF\nEOF")


def test_a_base_image_counts_and_the_space_around_it_does_not() -> None:
    assert of(image="python:3.11") == of(image=" python:3.11\n")
    assert of(image="python:3.11") != of(image="python:3.12") != of(image="")


def test_the_same_requirement_by_conda_or_by_the_field_is_not_the_same_environment() -> None:
    assert of("dependencies: [six]") != of("", "six")


def test_what_cannot_be_read_has_no_hash() -> None:
    with pytest.raises(InvalidInput):
        of("dependencies: [")


names = st.sampled_from(["numpy", "pandas", "scipy", "flask", "six", "joblib", "requests", "onnx"])
versions = st.sampled_from(["", "=1", "=1.26", "==2.0.1", ">=1.5,<2", "!=1.4"])
packages = st.lists(st.tuples(names, versions), min_size=1, max_size=8, unique_by=lambda p: p[0])


@settings(deadline=None)
@given(packages, st.randoms(use_true_random=False), st.booleans())
def test_no_order_and_no_comment_changes_the_hash(packages, random, flow) -> None:  # type: ignore[no-untyped-def]
    lines = [name + version for name, version in packages]
    pip = [
        line.replace("=", "==", 1)
        if line.count("=") == 1 and ">" not in line and "!" not in line
        else line
        for line in lines
    ]
    one = yaml.safe_dump({"dependencies": [*lines, {"pip": pip}]})
    random.shuffle(lines)
    shuffled_pip = random.sample(pip, len(pip))
    other = yaml.safe_dump(
        {"name": "x", "dependencies": [{"pip": shuffled_pip}, *lines]}, default_flow_style=flow
    )
    assert of(one, "\n".join(pip)) == of(f"# note\n{other}", "\n\n# note\n".join(shuffled_pip))


@settings(deadline=None)
@given(packages, st.data())
def test_a_changed_version_always_changes_the_hash(packages, data) -> None:  # type: ignore[no-untyped-def]
    lines = [f"{name}=1.{index}" for index, (name, _) in enumerate(packages)]
    place = data.draw(st.integers(0, len(lines) - 1))
    changed = [*lines[:place], lines[place] + "9", *lines[place + 1 :]]
    assert of(yaml.safe_dump({"dependencies": lines})) != of(
        yaml.safe_dump({"dependencies": changed})
    )

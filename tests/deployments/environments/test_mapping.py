"""What a process cluster makes of each kind of definition."""

import pytest

from deployments.environments.definition import parse
from deployments.environments.mapping import ProcessPlan, process_plan

SERVER = "azureml-inference-server-http==1.5.1"


def plan(
    *packages: str,
    pip: str = "",
    image: str = "",
    steps: str = "",
    pythons=((3, 11), (3, 9), (3, 8), (3, 12)),
) -> ProcessPlan:  # type: ignore[no-untyped-def]
    conda = "dependencies:\n" + "".join(f'  - "{text}"\n' for text in packages) if packages else ""
    return process_plan(
        parse(base_image=image, docker_steps=steps, conda_yaml=conda, pip_requirements=pip), pythons
    )


def test_an_empty_definition_is_the_scoring_server_on_the_preferred_python() -> None:
    assert plan() == ProcessPlan(python=(3, 11), lines=(SERVER,), notes=(), problems=())


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("numpy", "numpy"),
        ("numpy=1.26", "numpy==1.26.*"),
        ("numpy=1.26.4", "numpy==1.26.4.*"),
        ("numpy=1.26.*", "numpy==1.26.*"),
        ("numpy=1.26*", "numpy==1.26.*"),
        ("numpy==1.26.4", "numpy==1.26.4"),
        ("numpy 1.26.4", "numpy==1.26.4"),
        ("numpy>=1.26,<2", "numpy<2,>=1.26"),
        ("numpy=2.0rc1", "numpy==2.0rc1"),
        ("numpy=1.26.4=py311_0", "numpy==1.26.4.*"),
        ("numpy=*", "numpy"),
        ("pytorch=2.1", "torch==2.1.*"),
        ("conda-forge::scikit-learn", "scikit-learn"),
        ("librosa", "librosa"),
    ],
)
def test_a_conda_package_becomes_a_requirement(package: str, line: str) -> None:
    made = plan(package)
    assert made.problems == ()
    assert made.lines == tuple(sorted([SERVER, line]))


@pytest.mark.parametrize(
    "package",
    [
        "cudatoolkit=11.8",
        "mkl",
        "libgcc-ng",
        "libgcc",
        "_libgcc_mutex",
        "r-base",
        "r-ggplot2",
        "gcc_linux-64",
        "pytorch-cuda=12.1",
        "blas=*=openblas",
    ],
)
def test_what_only_conda_has_needs_another_kind_of_cluster_and_is_named(package: str) -> None:
    made = plan("numpy", package)
    (problem,) = made.problems
    assert problem.field == "conda_yaml"
    assert package.split("=")[0] + " (line 3) is not on PyPI" in problem.message
    assert "needs a Docker or Kubernetes cluster" in problem.message
    assert made.python is None


def test_all_that_is_not_on_pypi_is_named_at_once() -> None:
    (problem,) = plan("mkl", "cudnn").problems
    assert problem.message.startswith(
        "mkl (line 2), cudnn (line 3) are not on PyPI: they need a Docker"
    )


@pytest.mark.parametrize(
    ("pin", "chosen"),
    [
        ("python", (3, 11)),
        ("python=3.12", (3, 12)),
        ("python=3.12.4", (3, 12)),
        ("python==3.11.2", (3, 11)),
        ("python 3.9.*", (3, 9)),
        ("python>=3.12", (3, 12)),
        ("python>=3.9,<3.11", (3, 9)),
        ("python>=3.8,<3.12.2", (3, 11)),
        ("python~=3.9", (3, 11)),
        ("python=3", (3, 11)),
        ("python!=3.11.1", (3, 11)),
        ("python=*", (3, 11)),
    ],
)
def test_the_python_pin_picks_an_interpreter_that_is_there(
    pin: str, chosen: tuple[int, int]
) -> None:
    made = plan(pin)
    assert (made.problems, made.python) == ((), chosen)


def test_a_patch_release_of_python_is_said_to_be_the_machines_own() -> None:
    assert plan("python=3.11.4").notes == (
        "The machine's own Python 3.11 is used for python=3.11.4.",
    )


def test_a_python_that_is_not_there_is_named_with_those_that_are() -> None:
    (problem,) = plan("python=3.10").problems
    assert (
        '"python=3.10" is asked for, and this machine has Python 3.11, 3.9, 3.8, 3.12'
        in problem.message
    )
    (problem,) = plan("python=3.8").problems
    assert "needs Python 3.9 or newer" in problem.message
    (problem,) = plan(pythons=()).problems
    assert "No Python was found" in problem.message


def test_a_machines_image_and_steps_are_left_out_and_that_is_said() -> None:
    assert plan(image="python").notes == (
        "A process cluster runs no containers: the base image is left out there.",
    )
    assert "the docker steps are left out" in plan(steps="RUN a").notes[0]
    assert (
        "the base image and the docker steps are left out"
        in plan(image="x", steps="RUN a").notes[0]
    )


def test_azureml_defaults_without_a_version_is_the_scoring_server() -> None:
    for made in (plan(pip="azureml-defaults"), plan("azureml-defaults")):
        assert made.lines == (SERVER,)
        assert "add azureml-core" in made.notes[0]


def test_azureml_defaults_with_a_version_is_what_was_asked_for() -> None:
    assert plan(pip="azureml-defaults==1.60.0").lines == ("azureml-defaults==1.60.0", SERVER)


def test_another_version_of_the_scoring_server_is_refused() -> None:
    assert plan(pip="azureml-inference-server-http>=1.0").lines == (SERVER,)
    (problem,) = plan(pip="six\nazureml-inference-server-http==1.3").problems
    assert problem.message.startswith("Line 2: replicas run azureml-inference-server-http 1.5.1")


def test_pip_is_implicit_and_options_come_first() -> None:
    made = plan("pip", "six", pip="--extra-index-url https://x.example/simple\nattrs")
    assert made.lines == ("--extra-index-url https://x.example/simple", "attrs", SERVER, "six")


@pytest.mark.parametrize("package", ["numpy=1.25|1.26", "numpy[version='>=1']", "numpy==1.2-foo"])
def test_a_version_pip_has_no_words_for_is_named(package: str) -> None:
    (problem,) = plan(package).problems
    assert "Line 2" in problem.message

"""Each mistake is named with its line, each field for itself."""

import pytest

from deployments.environments.definition import (
    check_variables,
    parse,
    parse_base_image,
    parse_docker_steps,
    parse_variables,
    problems,
)
from deployments.errors import InvalidInput


@pytest.mark.parametrize(
    ("field", "text", "says"),
    [
        ("conda_yaml", "channels:\n\t- x", "Line 2, column 1: there is a tab"),
        (
            "conda_yaml",
            "dependencies:\n  - a\n - b",
            'Line 3, column 2: this line is not indented like the lines it belongs to, at "- b"',
        ),
        ("conda_yaml", "dependencies:\n  - a\n  - 'b\n", "end of the file"),
        ("conda_yaml", "dependencies: [numpy", "Line 1"),
        ("conda_yaml", "- numpy", "Line 1: the file must be a mapping"),
        (
            "conda_yaml",
            "name: x\ndependancies:\n  - a",
            "Line 2: `dependancies` is not a key of a conda file; write `dependencies`.",
        ),
        ("conda_yaml", "name: x\nname: y", "Line 2: `name` is there twice"),
        ("conda_yaml", "dependencies:\n  numpy: 1.2", "Line 2: `dependencies` must be a list"),
        (
            "conda_yaml",
            "dependencies:\n  - numpy\n  - numpy=>1.2",
            'Line 3: the version of "numpy=>1.2" cannot be read',
        ),
        ("conda_yaml", "dependencies:\n  - npm:\n    - x", "Line 2: only `pip:` may hold a list"),
        (
            "conda_yaml",
            "dependencies:\n  - pip:\n    - a\n    - b=1",
            'Line 4: pip needs two equals signs: "b==1"',
        ),
        ("conda_yaml", "dependencies:\n  - pip:\n    - -r requirements.txt", "Line 3"),
        ("conda_yaml", "variables:\n  A: 1", "Line 1: write variables under Environment variables"),
        (
            "pip_requirements",
            "numpy\nscikit-learn=1.5",
            'Line 2: pip needs two equals signs: "scikit-learn==1.5"',
        ),
        ("pip_requirements", "# c\n\n-r base.txt", 'Line 3: "-r base.txt" points to a file'),
        ("pip_requirements", "-e .", "points to a file"),
        ("pip_requirements", "./wheels/x.whl", "has no name"),
        ("pip_requirements", "git+https://example.com/x.git", "has no name"),
        ("pip_requirements", "numpy==", "Line 1"),
        ("pip_requirements", "--frobnicate", 'the option "--frobnicate" is not one'),
        ("pip_requirements", "--index-url", "needs a value"),
        ("pip_requirements", "--pre yes", "takes no value"),
        ("pip_requirements", "--index-url https://me:secret@x.example/simple", "holds a password"),
        ("pip_requirements", "x @ git+https://token@x.example/x.git", "holds a password"),
        ("pip_requirements", "x==1 --global-option=a", 'only "--hash="'),
        (
            "docker_steps",
            "RUN a\nFROM python",
            "Line 2: FROM is not allowed here: the image goes into the field Base image",
        ),
        ("docker_steps", "CMD x", "Line 1: CMD is not allowed"),
        ("docker_steps", "apt-get install x", '"apt-get" is not a Dockerfile instruction'),
        ("docker_steps", "RUN", "RUN needs something after it"),
        ("docker_steps", "RUN <<END\necho", 'never ends with a line "END"'),
        ("base_image", "Not An Image", "is not an image reference"),
        ("conda_yaml", "x" * 300_000, "characters; at most"),
    ],
)
def test_a_mistake_is_named_with_its_field_and_line(field: str, text: str, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(**{field: text})
    assert caught.value.field == field
    assert says in caught.value.message
    assert "secret" not in caught.value.message


def test_a_form_gets_one_message_for_each_wrong_field() -> None:
    found = problems(
        base_image="A B",
        docker_steps="FROM x",
        conda_yaml="[",
        pip_requirements="a=1\nb=2",
        variables={"1A": ""},
    )
    assert [error.field for error in found] == [
        "base_image",
        "docker_steps",
        "conda_yaml",
        "pip_requirements",
        "variables",
    ]
    assert problems(conda_yaml="dependencies: [numpy]", variables={"A": "1"}) == []


def test_a_version_like_a_number_stays_the_text_it_is() -> None:
    conda = parse(conda_yaml="dependencies:\n  - python=3.10\n  - numpy 1.20").conda
    assert [(p.name, p.spec, p.line) for p in conda.packages] == [
        ("python", "=3.10", 2),
        ("numpy", "1.20", 3),
    ]


@pytest.mark.parametrize(
    ("text", "name", "spec", "build", "channel"),
    [
        ("numpy", "numpy", "", "", ""),
        ("conda-forge::NumPy=1.26", "numpy", "=1.26", "", "conda-forge"),
        ("numpy=1.26.4=py311h64a7726_0", "numpy", "=1.26.4", "py311h64a7726_0", ""),
        ("numpy 1.26.4 py311_0", "numpy", "1.26.4", "py311_0", ""),
        ("numpy >= 1.26, < 2", "numpy", "<2,>=1.26", "", ""),
        ("numpy=1.25|1.26", "numpy", "1.26|=1.25", "", ""),
        ("blas=*=openblas", "blas", "=*", "openblas", ""),
        ("numpy[version='>=1']", "numpy", "[version='>=1']", "", ""),
    ],
)
def test_conda_lines_are_read(text: str, name: str, spec: str, build: str, channel: str) -> None:
    (package,) = parse(conda_yaml=f'dependencies: ["{text}"]').conda.packages
    assert (package.name, package.spec, package.build, package.channel) == (
        name,
        spec,
        build,
        channel,
    )


def test_steps_keep_their_continuations_and_heredocs() -> None:
    steps = parse_docker_steps(
        "RUN a \\\n  # why\n  && b\nCOPY <<X /x\n# kept\nX\nRUN echo $((1<<2))"
    )
    assert [(step.line, step.text) for step in steps] == [
        (1, "RUN a \\\n&& b"),
        (4, "COPY <<X /x\n# kept\nX"),
        (7, "RUN echo $((1<<2))"),
    ]


@pytest.mark.parametrize(
    "image",
    [
        "python",
        "python:3.11-slim",
        "mcr.microsoft.com/azureml/minimal-ubuntu22.04-py39-cpu-inference:latest",
        "localhost:5000/team/image@sha256:" + "a" * 64,
        "",
    ],
)
def test_image_references_are_taken(image: str) -> None:
    assert parse_base_image(image) == image


@pytest.mark.parametrize(
    "image", ["Python", "python:", "a//b", "x@sha256:12", "https://x/y", "a b"]
)
def test_what_is_no_image_reference_is_refused(image: str) -> None:
    with pytest.raises(InvalidInput):
        parse_base_image(image)


def test_variables_are_lines_of_name_and_value() -> None:
    assert parse_variables("A=1\n\n# note\nB_2 = x = y \nC=") == {"A": "1", "B_2": "x = y", "C": ""}
    for text, says in [
        ("A", 'Line 1: "A" has no "="'),
        ("A=1\nA=2", 'Line 2: the variable "A" is there twice'),
        ("1A=2", "is not a name"),
        ("AZUREML_MODEL_DIR=/x", "is set by Slipway"),
    ]:
        with pytest.raises(InvalidInput) as caught:
            parse_variables(text)
        assert says in caught.value.message
        assert caught.value.field == "variables"


def test_a_variable_holds_text_without_zero_bytes() -> None:
    with pytest.raises(InvalidInput):
        check_variables({"A": "a\0b"})
    check_variables({"A": "ünï\ncode"})

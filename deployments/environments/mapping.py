"""What a process cluster makes of an environment: an interpreter and a list for pip or uv.

PURE. A process cluster has no conda and no images: conda packages are taken from PyPI where the same
package is there, `python=` picks an interpreter that is on the machine, a base image and docker steps
are left out, and all of it is said in `notes`. What cannot be done is in `problems`; those
environments need a Docker or Kubernetes cluster.

A conda package that neither table below knows is taken to have the same name on PyPI; if it has not,
the build says so.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from deployments.environments.conda import CondaPackage
from deployments.environments.definition import Definition
from deployments.environments.pip import PipRequirement
from deployments.errors import InvalidInput

# The one place that says which scoring server replicas run; it is in every environment.
SCORING_SERVER = "azureml-inference-server-http"
SCORING_SERVER_VERSION = "1.5.1"
OLDEST_PYTHON = (3, 9)  # what that server needs

# Azure's old dependency, in everybody's conda files; on Azure it brought the scoring server.
AZUREML_DEFAULTS = "azureml-defaults"

# Part of every virtual environment, or a switch of conda's own: nothing to install.
_IMPLICIT = {"pip", "ca-certificates", "nomkl", "cpuonly"}

_RENAMED = {
    "dask-core": "dask",
    "matplotlib-base": "matplotlib",
    "msgpack-python": "msgpack",
    "opencv": "opencv-python-headless",
    "py-opencv": "opencv-python-headless",
    "py-lightgbm": "lightgbm",
    "py-xgboost": "xgboost",
    "py-xgboost-cpu": "xgboost",
    "pytables": "tables",
    "python-graphviz": "graphviz",
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "tensorflow-base": "tensorflow",
    "tensorflow-mkl": "tensorflow",
    "onnxruntime-cpu": "onnxruntime",
}

# Compilers, system libraries and drivers that only conda (or an image) brings.
_NOT_ON_PYPI = {
    "binutils",
    "blas",
    "boost",
    "bzip2",
    "cairo",
    "compilers",
    "conda",
    "cuda",
    "cudatoolkit",
    "cudnn",
    "cxx-compiler",
    "c-compiler",
    "ffmpeg",
    "fortran-compiler",
    "freetype",
    "gcc",
    "gdal-bin",
    "geos",
    "gfortran",
    "git",
    "glib",
    "graphviz",
    "gxx",
    "hdf5",
    "icu",
    "intel-openmp",
    "jpeg",
    "libpq",
    "llvm-openmp",
    "make",
    "mamba",
    "mkl",
    "mkl-devel",
    "mkl-include",
    "mpich",
    "nccl",
    "ncurses",
    "nodejs",
    "openblas",
    "openjdk",
    "openmpi",
    "openssl",
    "postgresql",
    "proj",
    "pytorch-cuda",
    "r",
    "r-base",
    "readline",
    "sqlite",
    "tk",
    "unixodbc",
    "xz",
    "zlib",
}
_NOT_ON_PYPI_PATTERN = re.compile(
    r"^(_.*|r-.+|cuda-.+|lib(?!rosa$|cst$|sass$|svm$|tmux$|linear$|pysal$).+|"
    r"(gcc|gxx|gfortran|binutils|sysroot)_.+)$"
)


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """What will be done on a process cluster. With `problems` there is nothing that can be done.

    `python` is (major, minor) of the interpreter; `lines` is a requirements file's content.
    """

    python: tuple[int, int] | None
    lines: tuple[str, ...]
    notes: tuple[str, ...]
    problems: tuple[InvalidInput, ...]


def process_plan(definition: Definition, interpreters: Sequence[tuple[int, int]]) -> ProcessPlan:
    """The plan for this definition where these Pythons are present, the preferred one first."""
    notes = _image_notes(definition)
    problems: list[InvalidInput] = []
    python = interpreters[0] if interpreters else None
    wanted: list[str] = []
    missing: list[CondaPackage] = []
    for package in definition.conda.packages:
        if package.name == "python":
            try:
                python = _choose_python(package, interpreters, notes)
            except InvalidInput as error:
                problems.append(error)
        elif package.name in _IMPLICIT:
            continue
        elif package.name in _NOT_ON_PYPI or _NOT_ON_PYPI_PATTERN.match(package.name):
            missing.append(package)
        else:
            try:
                wanted.append(_from_conda(package, notes))
            except InvalidInput as error:
                problems.append(error)
    if missing:
        problems.append(_not_on_pypi(missing))
    if python is None and not problems:
        problems.append(InvalidInput("No Python was found on this machine to build it with."))
    lines = pip_lines(definition, wanted, notes, problems)
    return ProcessPlan(
        python=None if problems else python,
        lines=lines,
        notes=tuple(dict.fromkeys(notes)),
        problems=tuple(problems),
    )


def pip_lines(
    definition: Definition,
    wanted: Sequence[str],
    notes: list[str],
    problems: list[InvalidInput],
) -> tuple[str, ...]:
    """A requirements file's lines: what is `wanted` already, the definition's pip parts, the scoring server.

    What is said or wrong on the way is added to `notes` and `problems`.
    """
    found = [*wanted, f"{SCORING_SERVER}=={SCORING_SERVER_VERSION}"]
    for part in (definition.conda.pip, definition.pip):
        for requirement in part.requirements:
            try:
                found += _from_pip(requirement, notes)
            except InvalidInput as error:
                problems.append(error)
    options = dict.fromkeys((*definition.pip.options, *definition.conda.pip.options))
    return (*options, *sorted(set(found)))


def _image_notes(definition: Definition) -> list[str]:
    """What a cluster without containers leaves out, said."""
    if definition.docker_steps:
        left_out = "the base image and the docker steps are" if definition.base_image else ""
        left_out = left_out or "the docker steps are"
    elif definition.base_image:
        left_out = "the base image is"
    else:
        return []
    return [f"A process cluster runs no containers: {left_out} left out there."]


def _not_on_pypi(missing: Sequence[CondaPackage]) -> InvalidInput:
    names = ", ".join(f"{package.name} (line {package.line})" for package in missing)
    verb, needs = ("is", "it needs") if len(missing) == 1 else ("are", "they need")
    return InvalidInput(
        f"{names} {verb} not on PyPI: {needs} a Docker or Kubernetes cluster. "
        "For a process cluster, take out what your code does not import.",
        field="conda_yaml",
    )


def _from_conda(package: CondaPackage, notes: list[str]) -> str:
    name = _RENAMED.get(package.name, package.name)
    if name == AZUREML_DEFAULTS and not package.spec:
        notes.append(_defaults_note())
        return f"{SCORING_SERVER}=={SCORING_SERVER_VERSION}"
    if package.build:
        notes.append(
            f"{package.name}: the conda build {package.build} has no meaning on PyPI and is left out."
        )
    if name != package.name:
        notes.append(f"{package.name} is called {name} on PyPI.")
    _check_server(name, _specifiers(package), package.line, "conda_yaml")
    return f"{name}{_specifiers(package)}"


def _from_pip(wanted: PipRequirement, notes: list[str]) -> list[str]:
    if wanted.name == AZUREML_DEFAULTS and not wanted.requirement.specifier:
        notes.append(_defaults_note())
        return []
    _check_server(wanted.name, wanted.requirement.specifier, wanted.line, "pip_requirements")
    if wanted.name == SCORING_SERVER and not wanted.requirement.extras:
        return []
    return [wanted.normal]


def _defaults_note() -> str:
    return (
        f"azureml-defaults stands for the scoring server, {SCORING_SERVER} {SCORING_SERVER_VERSION}. "
        "If your code imports azureml.core, add azureml-core."
    )


def _check_server(name: str, specifiers: SpecifierSet, line: int, field: str) -> None:
    if name == SCORING_SERVER and not specifiers.contains(SCORING_SERVER_VERSION):
        raise InvalidInput(
            f"Line {line}: replicas run {SCORING_SERVER} {SCORING_SERVER_VERSION}; take its version out.",
            field=field,
        )


def _specifiers(package: CondaPackage) -> SpecifierSet:
    """Conda's version as pip's. Raises InvalidInput where pip has no words for it."""
    if "|" in package.spec or package.spec.startswith("["):
        raise InvalidInput(
            f'Line {package.line}: pip has no words for "{package.text}"; write one range, such as '
            f"{package.name}>=1.2,<2.",
            field="conda_yaml",
        )
    try:
        return SpecifierSet(",".join(_pip_clause(clause) for clause in _clauses(package.spec)))
    except (InvalidSpecifier, InvalidVersion) as error:
        raise InvalidInput(
            f'Line {package.line}: "{package.text}" has a version that PyPI does not know.',
            field="conda_yaml",
        ) from error


def _clauses(spec: str) -> list[tuple[str, str]]:
    found = []
    for clause in filter(None, spec.split(",")):
        operator = re.match(r"[=<>!~]*", clause)
        length = operator.end() if operator else 0
        found.append((clause[:length], clause[length:]))
    return found


def _pip_clause(clause: tuple[str, str]) -> str:
    operator, version = clause
    if version == "*":
        return ""
    starred = version.endswith("*")
    bare = version.rstrip("*").rstrip(".")
    if operator in ("", "==") and not starred:
        return f"=={version}"
    if operator in ("", "=", "=="):
        # conda's `=1.2` is anything that begins with 1.2; pip allows no star after rc1 and the like
        return f"=={bare}" if Version(bare).is_prerelease else f"=={bare}.*"
    if starred:
        return f"!={bare}.*" if operator == "!=" else f"{operator}{bare}"
    return f"{operator}{version}"


def _choose_python(
    package: CondaPackage, interpreters: Sequence[tuple[int, int]], notes: list[str]
) -> tuple[int, int] | None:
    """The first interpreter that the pin allows, judged by major and minor version."""
    allowed = _minor_specifiers(package)
    present = [f"{major}.{minor}" for major, minor in interpreters]
    matching = [pair for pair, text in zip(interpreters, present, strict=True) if text in allowed]
    if not matching:
        raise InvalidInput(
            f'Line {package.line}: "{package.text}" is asked for, and this machine has Python '
            f"{', '.join(present) or 'none'}. Install that Python on it, change the line, or use a Docker "
            "or Kubernetes cluster.",
            field="conda_yaml",
        )
    chosen = matching[0]
    if chosen < OLDEST_PYTHON:
        raise InvalidInput(
            f"Line {package.line}: the scoring server needs Python 3.9 or newer, not "
            f"{chosen[0]}.{chosen[1]}.",
            field="conda_yaml",
        )
    if any(version.count(".") > 1 and "*" not in version for _, version in _clauses(package.spec)):
        notes.append(
            f"The machine's own Python {chosen[0]}.{chosen[1]} is used for {package.text}."
        )
    return chosen


def allows_python(package: CondaPackage, python: tuple[int, int]) -> bool:
    """Whether a `python=...` line is satisfied by this one, judged by major and minor version."""
    return f"{python[0]}.{python[1]}" in _minor_specifiers(package)


def _minor_specifiers(package: CondaPackage) -> SpecifierSet:
    cut = []
    for operator, version in _clauses(package.spec):
        parts = version.rstrip("*").rstrip(".").split(".")
        if operator == "!=" and len(parts) > 2:
            continue  # one patch release is ruled out, not the whole minor version
        if len(parts) > 2 and operator in ("<", "~="):
            operator = "<=" if operator == "<" else "="
        short = ".".join(parts[:2])
        if operator in ("", "=", "=="):
            cut.append(f"=={short}.*")
        else:
            cut.append(f"{operator}{short}")
    try:
        return SpecifierSet(",".join(clause for clause in cut if not clause.endswith("==.*")))
    except InvalidSpecifier as error:
        raise InvalidInput(
            f'Line {package.line}: "{package.text}" cannot be read; write python=3.11.',
            field="conda_yaml",
        ) from error

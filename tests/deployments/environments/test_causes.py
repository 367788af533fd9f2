"""What uv and pip print, and what a person is told. The outputs are real ones, shortened."""

import pytest

from deployments.environments.causes import explain, suggestion

UV_MISSING = """\
Using Python 3.11.7 environment at: v1
error: No solution found when resolving dependencies
  cause: Because scikit-lern was not found in the package registry and you require scikit-lern==1.5, we can conclude that your requirements are unsatisfiable."""  # noqa: E501
UV_NO_VERSION = """\
error: No solution found when resolving dependencies
  cause: Because there is no version of scikit-learn==99 and you require scikit-learn==99, we can conclude that your requirements are unsatisfiable."""  # noqa: E501
UV_CONFLICT = """\
error: No solution found when resolving dependencies
  cause: Because you require numpy==1.26.4 and numpy>=2.1, we can conclude that your requirements are unsatisfiable."""  # noqa: E501
UV_DNS = """\
error: Request failed after 3 retries in 8.8s
  cause: Failed to fetch: http://nohost.invalid/simple/six/
  cause: dns error"""
PIP_MISSING = """\
ERROR: Could not find a version that satisfies the requirement scikit-lern==1.5 (from versions: none)
ERROR: No matching distribution found for scikit-lern==1.5"""
PIP_NO_VERSION = """\
ERROR: Could not find a version that satisfies the requirement scikit-learn==99 (from versions: 0.9, 1.7.0, 1.7.1, 1.7.2, 1.8.0, 1.9.0, 1.9.1)
ERROR: No matching distribution found for scikit-learn==99"""  # noqa: E501
PIP_CONFLICT = """\
ERROR: Cannot install numpy==1.26.4 and numpy>=2.1 because these package versions have conflicting dependencies.

The conflict is caused by:
    The user requested numpy==1.26.4
    The user requested numpy>=2.1

To fix this you could try to:
ERROR: ResolutionImpossible: for help visit https://pip.pypa.io"""  # noqa: E501
PIP_NETWORK = """\
WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError: ...'
ERROR: Could not find a version that satisfies the requirement six (from versions: none)"""


@pytest.mark.parametrize(
    ("output", "says"),
    [
        (UV_MISSING, "tool could not find scikit-lern==1.5: did you mean scikit-learn?"),
        (PIP_MISSING, "tool could not find scikit-lern==1.5: did you mean scikit-learn?"),
        (
            PIP_MISSING.replace("scikit-lern", "zzqqx"),
            "tool could not find zzqqx==1.5. If it is a conda package",
        ),
        (UV_NO_VERSION, "tool could not find scikit-learn==99: there is no such version"),
        (PIP_NO_VERSION, "The newest for this Python are 1.7.1, 1.7.2, 1.8.0, 1.9.0, 1.9.1."),
        (
            UV_CONFLICT,
            "cannot be installed together. Because you require numpy==1.26.4 and numpy>=2.1",
        ),
        (PIP_CONFLICT, "The user requested numpy==1.26.4; The user requested numpy>=2.1."),
        (
            "error: write failed\n  cause: No space left on device (os error 28)",
            "The disk that holds /home is full",
        ),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "is full",
        ),
        ("[Errno 122] Disk quota exceeded", "is full"),
        ("Error: Command '[...]' failed\nensurepip is not available", "Install python3-venv"),
        ("error: HTTP status client error (401 Unauthorized) for url (https://x)", "refused tool"),
        (
            "  × Failed to build `pyodbc==5.0.0`\n  ├─▶ The build backend returned an error",
            "pyodbc could not be built from its source",
        ),
        ("ERROR: Failed building wheel for sklearn", "did you mean scikit-learn?"),
        ("error: Hash mismatch for `six==1.17.0`", "not the one its --hash names"),
        ("something\nerror: a thing nobody knows", "tool failed: error: a thing nobody knows"),
        ("", "tool failed and said nothing."),
    ],
)
def test_output_becomes_plain_words(output: str, says: str) -> None:
    failure = explain(output.splitlines(), installer="tool", folder="/home")
    assert says in failure.message
    assert failure.temporary is False


@pytest.mark.parametrize(
    ("output", "where"), [(UV_DNS, " at http://nohost.invalid"), (PIP_NETWORK, "")]
)
def test_an_index_out_of_reach_may_be_back_later(output: str, where: str) -> None:
    failure = explain(output.splitlines(), installer="pip", folder="/home")
    assert f"could not reach the package index{where}" in failure.message
    assert failure.temporary is True


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("sklearn", "scikit-learn"),
        ("scikit_lern", "scikit-learn"),
        ("cv2", "opencv-python-headless"),
        ("panda", "pandas"),
        ("numpy", ""),
        ("our-own-package", ""),
    ],
)
def test_a_misspelt_name_is_guessed_only_when_it_is_close(typed: str, meant: str) -> None:
    assert suggestion(typed) == meant

"""Why an installer failed, in plain words, out of what it printed.

PURE: lines in, a `Failure` out. Knows how uv and pip put it; what it does not know is said as the
installer said it.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

# Codes that go with a cause. The second may pass by itself.
FAILED_CODE = "EnvironmentBuildFailed"
UNREACHABLE_CODE = "PackageIndexUnreachable"

# What the module is called in Python, where people write that instead of the package's name.
_IMPORT_NAMES = {
    "bs4": "beautifulsoup4",
    "crypto": "pycryptodome",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "onnx-runtime": "onnxruntime",
    "pil": "pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}

# Packages that scoring scripts ask for most; only ever used to guess what a misspelling means.
_WELL_KNOWN = """
accelerate aiohttp altair azure-identity azure-storage-blob azureml-core azureml-defaults
azureml-inference-server-http boto3 catboost category-encoders click cloudpickle
cryptography cython dask datasets fastapi flask gensim gunicorn h5py httpx huggingface-hub
imbalanced-learn inference-schema jinja2 joblib keras lightgbm lime lxml matplotlib mlflow
msgpack networkx nltk numba numexpr numpy nvidia-ml-py onnx openai openpyxl optuna orjson
pandas patsy peft plotly polars prophet protobuf psutil psycopg psycopg2-binary pyarrow
pydantic pymongo pyodbc pyspark pytest pytorch-lightning pytz redis regex requests scipy
seaborn sentence-transformers sentencepiece setuptools shap skl2onnx skops spacy sqlalchemy
statsmodels sympy tables tensorflow tensorflow-cpu threadpoolctl tokenizers torch torchaudio
torchvision tqdm transformers typing-extensions urllib3 uvicorn werkzeug wheel xgboost
"""
_DISK = re.compile(r"No space left on device|os error 28\b|Errno 28\b|Disk quota exceeded", re.I)
_NETWORK = re.compile(
    r"dns error|Name or service not known|name resolution|Connection refused|NewConnectionError|"
    r"ConnectTimeout|Read timed out|error sending request|Network is unreachable|operation timed out",
    re.I,
)
_ADDRESS = re.compile(r"(?:Failed to fetch:?|host=)\s*[`'\"]?([^\s`'\",)]+)")
_REFUSED = re.compile(
    r"\b(401|403)\b.*(?:Unauthorized|Forbidden|for url)|status client error \(40[13]"
)
_UV_MISSING = re.compile(
    r"(?:Because|and) (\S+) was not found in the .*?registry(?: and you require (\S+))?"
)
_UV_NO_VERSION = re.compile(r"there (?:is|are) no versions? of ([A-Za-z0-9_.\-]+)(\S*)")
_PIP_NO_VERSION = re.compile(
    r"satisfies the requirement ([A-Za-z0-9_.\-]+)(.*?) \(from versions: (.*)\)"
)
_PIP_MISSING = re.compile(r"No matching distribution found for ([A-Za-z0-9_.\-]+)(\S*)")
_BUILD = re.compile(
    r"Failed to build [`']?([A-Za-z0-9_.\-]+)|Failed building wheel for (\S+)|"
    r"Failed to (?:build|download and build) [`']?([^`'\s]+)"
)
_PYTHON = re.compile(
    r"the current Python version \(.*?\) does not satisfy (Python\S*)|Requires-Python (\S+)"
)
_HASH = re.compile(r"Hash mismatch|DO NOT MATCH THE HASHES", re.I)
_NO_VENV = re.compile(r"ensurepip is not available|No module named (?:ensurepip|venv)")


_ELSEWHERE = (
    "If it is a conda package that is not on PyPI, it needs a Docker or Kubernetes cluster."
)


@dataclass(frozen=True, slots=True)
class Failure:
    """`temporary` where the same build may succeed later without a change."""

    message: str
    temporary: bool = False


def explain(
    lines: Sequence[str], *, installer: str, folder: str, elsewhere: str = _ELSEWHERE
) -> Failure:
    """The cause in `lines` of output of `installer` ("uv" or "pip"), which wrote to `folder`.

    `elsewhere` is said of a package that the index does not have and that is no misspelling known here.
    """
    text = "\n".join(lines)
    if _DISK.search(text):
        return Failure(
            f"The disk that holds {folder} is full. Free some room (unused environments can be removed "
            "on their page) and build again."
        )
    if _NO_VENV.search(text):
        return Failure(
            "This Python cannot make virtual environments: its venv module is not installed. Install "
            "python3-venv on this machine, or set SLIPWAY_INSTALLER=uv."
        )
    if _REFUSED.search(text):
        return Failure(
            f"The package index refused {installer}: sign-in is missing or wrong. Check the index's user "
            "and password in the configuration of the machine that builds."
        )
    if _NETWORK.search(text):
        address = _ADDRESS.search(text)
        where = f" at {address[1]}" if address else ""
        return Failure(
            f"{installer} could not reach the package index{where}. Check the network and the proxy, "
            "and build again.",
            temporary=True,
        )
    return Failure(_packages(text, installer, elsewhere) or _said(lines, installer))


def _packages(text: str, installer: str, elsewhere: str) -> str:
    if found := _PIP_NO_VERSION.search(text):
        name, wanted, known = found[1], found[2].strip(), found[3]
        if known == "none":
            return _missing(name, wanted, installer, elsewhere)
        newest = ", ".join(known.split(", ")[-5:])
        return (
            f"{installer} could not find {name}{wanted}: there is no such version. The newest for this "
            f"Python are {newest}."
        )
    if found := _UV_MISSING.search(text):
        asked = (found[2] or found[1]).rstrip(",.")
        return _missing(found[1], asked.removeprefix(found[1]), installer, elsewhere)
    if found := _PYTHON.search(text):
        needed = (found[1] or found[2]).rstrip(",.")
        return f"A package needs {needed}, which is not this environment's Python. {_why(text)}".strip()
    if found := _UV_NO_VERSION.search(text):
        return (
            f"{installer} could not find {found[1]}{found[2].rstrip(',')}: there is no such version for "
            "this Python."
        )
    if _HASH.search(text):
        return "A downloaded package is not the one its --hash names. Check the hash or the index."
    if "No solution found" in text or "ResolutionImpossible" in text or "conflicting dep" in text:
        return f"The packages cannot be installed together. {_why(text)}".strip()
    if found := _BUILD.search(text):
        name = next(filter(None, found.groups()))
        return (
            f"{name} could not be built from its source. It has no wheel for this Python and machine: "
            f"choose a version that has one, or install what its build needs.{_hint(name)}"
        )
    if found := _PIP_MISSING.search(text):
        return _missing(found[1], found[2], installer, elsewhere)
    return ""


def _missing(name: str, wanted: str, installer: str, elsewhere: str) -> str:
    hint = _hint(name) or f" {elsewhere}"
    mark = ":" if hint.startswith(" did") else "."
    return f"{installer} could not find {name}{wanted}{mark}{hint}"


def _hint(name: str) -> str:
    better = suggestion(name)
    return f" did you mean {better}?" if better else ""


def suggestion(name: str) -> str:
    """The well-known package this name is probably meant for, or ""."""
    plain = re.sub(r"[-_.]+", "-", name).lower()
    if plain in _IMPORT_NAMES:
        return _IMPORT_NAMES[plain]
    names = [*_WELL_KNOWN.split(), *_IMPORT_NAMES.values()]
    close = difflib.get_close_matches(plain, names, n=1, cutoff=0.8)
    return close[0] if close and close[0] != plain else ""


def _why(text: str) -> str:
    """The resolver's own reasoning: uv's "Because ...", pip's list of who asked for what."""
    because = re.search(r"Because .*?(?:unsatisfiable|cannot be used)\.", text, re.S)
    if because:
        return " ".join(because[0].split())
    conflict = re.search(r"The conflict is caused by:\n((?:\s{2,}.*\n?)+)", text)
    if conflict:
        return "; ".join(line.strip() for line in conflict[1].strip().splitlines()) + "."
    return ""


def _said(lines: Sequence[str], installer: str) -> str:
    errors = [line.strip() for line in lines if re.match(r"\s*(error|fatal)\b", line, re.I)]
    last = errors[-1] if errors else next((x.strip() for x in reversed(lines) if x.strip()), "")
    return f"{installer} failed: {last}" if last else f"{installer} failed and said nothing."

"""Serves a scikit-learn model without an entry script of its own. Runs inside the replica only.

The model is the one joblib or pickle file in AZUREML_MODEL_DIR. A request is
`{"data": [[5.1, 3.5], ...], "method": "predict"}`, a row a sample; without a method it is
predict_proba where the model has one, else predict. The answer is a JSON list, an item a row.
What cannot be understood is answered 400 with the reason.
"""

import json
import os
from pathlib import Path
from typing import Any

import joblib
import numpy

METHODS = (
    "predict",
    "predict_proba",
    "predict_log_proba",
    "decision_function",
    "score_samples",
    "transform",
)
_ENDINGS = (".joblib", ".pkl", ".pickle", ".sav")
_model: Any = None


class BadRequest(Exception):
    """The request's body is wrong; the message says how."""


def init() -> None:
    global _model
    path = model_file(Path(os.environ["AZUREML_MODEL_DIR"]))
    print(f"Loading {path.name}", flush=True)
    _model = joblib.load(path)
    print(f"Loaded a {type(_model).__name__}", flush=True)


def run(data: str) -> Any:
    try:
        return score(_model, data)
    except BadRequest as error:
        from azureml_inference_server_http.api.aml_response import AMLResponse

        return AMLResponse({"message": str(error)}, 400, json_str=True)


def model_file(folder: Path) -> Path:
    """The one file that holds the model. Raises RuntimeError that names what is there."""
    found = sorted(path for path in folder.rglob("*") if path.suffix in _ENDINGS)
    named = [path for path in found if path.stem == "model"]
    if len(found) == 1 or len(named) == 1:
        return (named or found)[0]
    names = ", ".join(str(path.relative_to(folder)) for path in found) or "none"
    raise RuntimeError(
        f"One file ending in {', '.join(_ENDINGS)} is needed, or one named model.*; "
        f"the model has {names}. Register the model with one, or write an entry script."
    )


def score(model: Any, body: str) -> Any:
    """The answer to one request's body. Raises BadRequest."""
    try:
        request = json.loads(body)
    except ValueError as error:
        raise BadRequest(f"The body is not JSON: {error}.") from error
    if not isinstance(request, dict) or "data" not in request:
        raise BadRequest('The body must be an object like {"data": [[1.0, 2.0]]}.')
    method = request.get("method") or default_method(model)
    if method not in METHODS:
        raise BadRequest(f"method is {method!r}; it takes one of {', '.join(METHODS)}.")
    if not hasattr(model, method):
        raise BadRequest(f"This {type(model).__name__} has no {method}.")
    try:
        rows = numpy.asarray(request["data"])
    except ValueError as error:
        raise BadRequest("The rows of data must have the same length.") from error
    expected = getattr(model, "n_features_in_", None)
    if expected is not None and (rows.ndim != 2 or rows.shape[1] != expected):
        raise BadRequest(
            f"data must be a list of rows of {expected} numbers; its shape is {rows.shape}."
        )
    try:
        return plain(getattr(model, method)(rows))
    except (ValueError, TypeError) as error:
        raise BadRequest(f"{method} refused the data: {error}") from error


def default_method(model: Any) -> str:
    return "predict_proba" if hasattr(model, "predict_proba") else "predict"


def plain(result: Any) -> Any:
    """Lists and numbers for arrays, sparse matrices and lists of arrays."""
    if hasattr(result, "toarray"):
        result = result.toarray()
    if isinstance(result, list):
        return [plain(item) for item in result]
    return result.tolist()

"""Serves an ONNX model without an entry script of its own. Runs inside the replica only.

The model is the one .onnx file in AZUREML_MODEL_DIR. A request is `{"data": [[5.1, 3.5], ...]}` for a
model with one input, and `{"data": {"a": [...], "b": [...]}}` by the inputs' names for one with more.
The answer is an object, an output's name to its values. What cannot be understood is answered 400.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy

# ONNX's names of element types to numpy's.
_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint64)": "uint64",
    "tensor(uint32)": "uint32",
    "tensor(uint16)": "uint16",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
}
_session: Any = None


class BadRequest(Exception):
    """The request's body is wrong; the message says how."""


def init() -> None:
    global _session
    import onnxruntime

    path = model_file(Path(os.environ["AZUREML_MODEL_DIR"]))
    print(f"Loading {path.name}", flush=True)
    _session = onnxruntime.InferenceSession(
        str(path), providers=onnxruntime.get_available_providers()
    )
    inputs = ", ".join(f"{item.name} {item.type} {item.shape}" for item in _session.get_inputs())
    print(f"Loaded; inputs: {inputs}", flush=True)


def run(data: str) -> Any:
    try:
        return score(_session, data)
    except BadRequest as error:
        from azureml_inference_server_http.api.aml_response import AMLResponse

        return AMLResponse({"message": str(error)}, 400, json_str=True)


def model_file(folder: Path) -> Path:
    """The one file that holds the model. Raises RuntimeError that names what is there."""
    found = sorted(folder.rglob("*.onnx"))
    named = [path for path in found if path.stem == "model"]
    if len(found) == 1 or len(named) == 1:
        return (named or found)[0]
    names = ", ".join(str(path.relative_to(folder)) for path in found) or "none"
    raise RuntimeError(
        f"One .onnx file is needed, or one named model.onnx; the model has {names}. "
        "Register the model with one, or write an entry script."
    )


def score(session: Any, body: str) -> dict[str, Any]:
    """The answer to one request's body. Raises BadRequest."""
    try:
        request = json.loads(body)
    except ValueError as error:
        raise BadRequest(f"The body is not JSON: {error}.") from error
    if not isinstance(request, dict) or "data" not in request:
        raise BadRequest('The body must be an object like {"data": [[1.0, 2.0]]}.')
    inputs = session.get_inputs()
    data = request["data"]
    if not isinstance(data, dict):
        if len(inputs) != 1:
            names = ", ".join(item.name for item in inputs)
            raise BadRequest(f"This model has {len(inputs)} inputs; give data by name: {names}.")
        data = {inputs[0].name: data}
    missing = [item.name for item in inputs if item.name not in data]
    if missing:
        raise BadRequest(f"data lacks the inputs {', '.join(missing)}.")
    feed = {}
    for item in inputs:
        try:
            feed[item.name] = numpy.asarray(data[item.name], dtype=_TYPES.get(item.type))
        except (ValueError, TypeError) as error:
            raise BadRequest(f"Input {item.name} takes {item.type}: {error}.") from error
    try:
        results = session.run(None, feed)
    except Exception as error:
        # onnxruntime's own error classes say InvalidArgument for a wrong shape or rank
        if "INVALID_ARGUMENT" in str(error) or "InvalidArgument" in type(error).__name__:
            raise BadRequest(str(error)) from error
        raise
    return {
        item.name: plain(result)
        for item, result in zip(session.get_outputs(), results, strict=True)
    }


def plain(result: Any) -> Any:
    """Lists and numbers for arrays; maps of class to probability become objects with text keys."""
    if isinstance(result, (numpy.ndarray, numpy.generic)):
        return result.tolist()
    if isinstance(result, dict):
        return {str(key): plain(value) for key, value in result.items()}
    if isinstance(result, list):
        return [plain(item) for item in result]
    return result

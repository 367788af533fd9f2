"""Entry scripts to start from, offered in the page's editor. Text only; nothing here is run by the portal."""

SCIKIT_LEARN = '''import json
import os
from pathlib import Path

import joblib


def init():
    """Runs once, when a replica starts."""
    global model
    folder = Path(os.environ["AZUREML_MODEL_DIR"])
    path = next(p for p in sorted(folder.rglob("*")) if p.suffix in (".pkl", ".joblib"))
    model = joblib.load(path)


def run(raw_data):
    """Runs for each request; what it returns is the answer's JSON."""
    rows = json.loads(raw_data)["data"]
    return {"result": model.predict(rows).tolist()}
'''

ONNX = '''import json
import os
from pathlib import Path

import numpy
import onnxruntime


def init():
    """Runs once, when a replica starts."""
    global session
    folder = Path(os.environ["AZUREML_MODEL_DIR"])
    session = onnxruntime.InferenceSession(str(next(folder.rglob("*.onnx"))))


def run(raw_data):
    """Runs for each request; what it returns is the answer's JSON."""
    rows = numpy.asarray(json.loads(raw_data)["data"], dtype=numpy.float32)
    name = session.get_inputs()[0].name
    return {"result": session.run(None, {name: rows})[0].tolist()}
'''

PLAIN = '''import json
import os


def init():
    """Runs once, when a replica starts. The model's files are below AZUREML_MODEL_DIR."""
    global folder
    folder = os.environ["AZUREML_MODEL_DIR"]


def run(raw_data):
    """Runs for each request; what it returns is the answer's JSON."""
    data = json.loads(raw_data)
    return {"received": data}
'''

TEMPLATES: dict[str, str] = {
    "scikit-learn": SCIKIT_LEARN,
    "ONNX": ONNX,
    "Empty": PLAIN,
}
_BY_FRAMEWORK = {"ScikitLearn": SCIKIT_LEARN, "Onnx": ONNX}


def for_framework(framework: str) -> str:
    """The template that suits a model's framework best."""
    return _BY_FRAMEWORK.get(framework, PLAIN)

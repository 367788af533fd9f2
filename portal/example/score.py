"""Scoring script of the example: ten measurements of a patient in, the disease's progression out."""

import os

import joblib
import numpy as np
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.schema_decorators import input_schema, output_schema

EXAMPLE_INPUT = np.array(
    [[0.0381, 0.0507, 0.0617, 0.0219, -0.0442, -0.0348, -0.0434, -0.0026, 0.0199, -0.0176]]
)
EXAMPLE_OUTPUT = np.array([206.1])

model = None


def init():
    """Load the model once."""
    global model
    model = joblib.load(os.path.join(os.environ["AZUREML_MODEL_DIR"], "model.joblib"))
    print("The diabetes model is loaded.")


@input_schema("data", NumpyParameterType(EXAMPLE_INPUT, enforce_shape=False))
@output_schema(NumpyParameterType(EXAMPLE_OUTPUT))
def run(data):
    """One prediction a row."""
    return model.predict(data).round(1).tolist()

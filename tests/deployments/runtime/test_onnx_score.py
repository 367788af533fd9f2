"""The entry script of ONNX models without code, with a session that stands for onnxruntime's."""

import json
from types import SimpleNamespace

import numpy
import pytest

from deployments.runtime import onnx_score as script


class Session:
    """Adds up its inputs."""

    def __init__(self, **inputs: str) -> None:
        self._inputs = [SimpleNamespace(name=name, type=kind) for name, kind in inputs.items()]
        self.fed: dict[str, numpy.ndarray] = {}

    def get_inputs(self):
        return self._inputs

    def get_outputs(self):
        return [SimpleNamespace(name="sum"), SimpleNamespace(name="probabilities")]

    def run(self, wanted, feed):
        self.fed = feed
        return [sum(feed.values()).sum(axis=-1), [{0: numpy.float32(0.25)}]]


def ask(session, **request):
    return script.score(session, json.dumps(request))


def test_one_input_takes_the_rows_in_its_own_type():
    session = Session(x="tensor(float)")
    answer = ask(session, data=[[1, 2], [3, 4]])
    assert answer["sum"] == [3.0, 7.0]
    assert session.fed["x"].dtype == numpy.float32
    assert json.loads(json.dumps(answer))["probabilities"] == [{"0": 0.25}]


def test_several_inputs_are_given_by_name():
    session = Session(a="tensor(int64)", b="tensor(double)")
    assert ask(session, data={"a": [[1]], "b": [[2.5]]})["sum"] == [3.5]
    assert session.fed["a"].dtype == numpy.int64


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"rows": 1}, "must be an object"),
        ({"data": [[1]]}, "2 inputs"),
        ({"data": {"a": [[1]]}}, "lacks the inputs b"),
        ({"data": {"a": [["x"]], "b": [[1]]}}, "Input a takes"),
    ],
)
def test_what_cannot_be_scored_is_explained(request_, said):
    session = Session(a="tensor(int64)", b="tensor(double)")
    with pytest.raises(script.BadRequest, match=said):
        script.score(session, json.dumps(request_))


def test_a_shape_the_model_refuses_is_the_callers_fault_and_other_errors_are_not():
    session = Session(x="tensor(float)")

    def refuse(wanted, feed):
        raise RuntimeError("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions")

    session.run = refuse
    with pytest.raises(script.BadRequest):
        ask(session, data=[[1]])

    def fail(wanted, feed):
        raise RuntimeError("out of memory")

    session.run = fail
    with pytest.raises(RuntimeError, match="memory"):
        ask(session, data=[[1]])


def test_a_model_without_an_onnx_file_is_refused(tmp_path):
    (tmp_path / "a.pkl").touch()
    with pytest.raises(RuntimeError, match="onnx"):
        script.model_file(tmp_path)
    (tmp_path / "net.onnx").touch()
    assert script.model_file(tmp_path).name == "net.onnx"

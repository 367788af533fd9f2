"""The entry script of scikit-learn models without code."""

import json

import joblib
import numpy
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from deployments.runtime import scikit_learn_score as script

ROWS = numpy.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [3.0, 0.0]])


@pytest.fixture(scope="module")
def classifier() -> LogisticRegression:
    return LogisticRegression().fit(ROWS, [0, 0, 1, 1])


@pytest.fixture(scope="module")
def regression() -> LinearRegression:
    return LinearRegression().fit(ROWS, [0.0, 1.0, 2.0, 3.0])


def ask(model, **request):
    return script.score(model, json.dumps(request))


def test_probabilities_by_default_where_there_are_any(classifier, regression):
    answer = ask(classifier, data=[[0, 1], [3, 0]])
    assert numpy.allclose(answer, classifier.predict_proba([[0, 1], [3, 0]]))
    assert numpy.allclose(ask(regression, data=[[3, 0]]), [3.0])


def test_the_method_that_is_asked_for(classifier):
    assert ask(classifier, data=[[0, 1], [3, 0]], method="predict") == [0, 1]
    json.dumps(ask(classifier, data=[[0, 1]], method="decision_function"))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("no json", "not JSON"),
        ("[[1, 2]]", "must be an object"),
        ('{"rows": []}', "must be an object"),
        ('{"data": [[1, 2]], "method": "fit"}', "takes one of"),
        ('{"data": [[1, 2]], "method": "__class__"}', "takes one of"),
        ('{"data": [[1, 2]], "method": "transform"}', "has no transform"),
        ('{"data": [[1, 2, 3]]}', "rows of 2 numbers"),
        ('{"data": [1, 2]}', "rows of 2 numbers"),
        ('{"data": [[1, 2], [1]]}', "same length"),
        ('{"data": [["a", "b"]]}', "refused the data"),
        ('{"data": [[1, null]]}', "refused the data"),
        ('{"data": []}', "rows of 2 numbers"),
    ],
)
def test_what_cannot_be_scored_is_explained(classifier, body, said):
    with pytest.raises(script.BadRequest, match=said):
        script.score(classifier, body)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["a.pkl"], "a.pkl"),
        (["deep/er/a.joblib", "readme.txt"], "a.joblib"),
        (["model.pkl", "scaler.pkl"], "model.pkl"),
        (["a.pkl", "b.pkl"], None),
        (["readme.txt"], None),
    ],
)
def test_the_one_file_that_holds_the_model(tmp_path, names, chosen):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    if chosen:
        assert script.model_file(tmp_path).name == chosen
    else:
        with pytest.raises(RuntimeError, match="One file"):
            script.model_file(tmp_path)


def test_init_loads_what_run_serves(tmp_path, regression, monkeypatch):
    joblib.dump(regression, tmp_path / "model.joblib")
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path))
    monkeypatch.setattr(script, "_model", None)
    script.init()
    assert numpy.allclose(script.run('{"data": [[3, 0]]}'), [3.0])

"""Trains the example. Run by `manage.py seed` alone: the portal never loads scikit-learn."""

from pathlib import Path

import joblib
import sklearn
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge


def train(folder: Path) -> tuple[Path, str]:
    """Fit a ridge regression on scikit-learn's bundled diabetes data.

    Returns the file it was saved to, in `folder`, and scikit-learn's version.
    """
    features, progression = load_diabetes(return_X_y=True)
    path = folder / "model.joblib"
    joblib.dump(Ridge(alpha=0.01).fit(features, progression), path)
    return path, sklearn.__version__

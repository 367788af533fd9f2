"""Settings of the test run: the product's own, with state in a folder of its own.

Each process that runs tests has its own folder, never the one of a Slipway that is in use: numbers of
rows begin anew in each test database, and files are named by them. Processes that a test starts keep
the SLIPWAY_HOME they are given.
"""

import atexit
import os
import shutil
import tempfile

_RUNS_TESTS = os.environ.get("PYTEST_XDIST_WORKER", "alone")
if os.environ.get("TESTS_OF_SLIPWAY_IN") != _RUNS_TESTS:
    _home = tempfile.mkdtemp(prefix="slipway-tests-")
    atexit.register(shutil.rmtree, _home, ignore_errors=True)
    os.environ["TESTS_OF_SLIPWAY_IN"] = _RUNS_TESTS
    os.environ["SLIPWAY_HOME"] = _home

from portal.settings import *  # noqa: E402, F403

CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STORAGES = {
    **STORAGES,  # noqa: F405
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
STATIC_ROOT.mkdir(exist_ok=True)  # noqa: F405  whitenoise warns where it is missing

"""Settings of the test run: the product's own, with state in a folder of its own."""

import os
import tempfile

os.environ.setdefault("SLIPWAY_HOME", tempfile.mkdtemp(prefix="slipway-tests-"))

from portal.settings import *  # noqa: F403

CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STORAGES = {
    **STORAGES,  # noqa: F405
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
STATIC_ROOT.mkdir(exist_ok=True)  # noqa: F405  whitenoise warns where it is missing

"""Static files: our own, htmx and plotly out of their packages, hashed and compressed."""

from django.contrib.staticfiles.finders import FileSystemFinder
from whitenoise.storage import CompressedManifestStaticFilesStorage


class Finder(FileSystemFinder):
    """`static/`, and of plotly's package data only the script that pages load."""

    def list(self, ignore_patterns):  # type: ignore[no-untyped-def]
        for path, storage in super().list(ignore_patterns):
            if getattr(storage, "prefix", None) == "plotly" and path != "plotly.min.js":
                continue
            yield path, storage


class Storage(CompressedManifestStaticFilesStorage):  # type: ignore[misc]
    """Names carry a hash of the content, so browsers may keep them for good."""

    manifest_strict = False

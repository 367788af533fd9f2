"""An Engine's events as lines a person reads: no bars, a sum every few seconds.

PURE: events and the time in, lines out.
"""

from collections.abc import Mapping
from typing import Any

_EVERY = 2.0  # seconds between two lines about how far it is
_QUIET = {
    "Preparing",
    "Waiting",
    "Downloading",
    "Extracting",
    "Pushing",
    "Verifying Checksum",
    "Download complete",
    "Pulling fs layer",
}


class Progress:
    """Of one pull or push. `verb` ("Pushing") begins the lines about how far it is."""

    def __init__(self, verb: str, now: float) -> None:
        self._verb = verb
        self._said_at = now
        self._layers: dict[str, tuple[int, int]] = {}  # id -> (done, all), bytes
        self._said = ""
        self.digest = ""

    def lines(self, events: list[Mapping[str, Any]], now: float) -> list[str]:
        """What is worth a line of these events."""
        found = []
        for event in events:
            aux = event.get("aux")
            if isinstance(aux, dict) and aux.get("Digest"):
                self.digest = str(aux["Digest"])
            status, layer = str(event.get("status") or ""), str(event.get("id") or "")
            detail = event.get("progressDetail") or {}
            if layer and detail.get("total"):
                total = int(detail["total"])
                self._layers[layer] = (min(int(detail.get("current", 0)), total), total)
            elif layer in self._layers and status in ("Pushed", "Pull complete"):
                self._layers[layer] = (self._layers[layer][1],) * 2
            if status.startswith("Digest: "):
                self.digest = status.removeprefix("Digest: ")
            if status and status not in _QUIET:
                found.append(f"{layer}: {status}" if layer else status)
        if now - self._said_at >= _EVERY and self._layers:
            done, total = (sum(pair[i] for pair in self._layers.values()) for i in (0, 1))
            text = f"{self._verb}: {done / 2**20:,.1f} of {total / 2**20:,.1f} MiB"
            if text != self._said:
                found.append(text)
                self._said_at, self._said = now, text
        return found


def build_lines(events: list[Mapping[str, Any]]) -> tuple[list[str], str]:
    """Lines of a build's output, and the id of the image it says it made ("" while it has not)."""
    text, image = "", ""
    for event in events:
        text += str(event.get("stream") or "")
        aux = event.get("aux")
        if isinstance(aux, dict) and aux.get("ID"):
            image = str(aux["ID"])
        if event.get("status"):
            layer = f"{event['id']}: " if event.get("id") else ""
            text += f"{layer}{event['status']}\n"
    lines = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n")]
    return [line for line in lines if line.strip()], image

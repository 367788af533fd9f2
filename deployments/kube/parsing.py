"""An API server's answers as plain objects, large ones too."""

import gc
import json
from typing import Any

_LARGE = 500_000  # bytes


def parsed(data: bytes) -> Any:
    """What the JSON says. Raises ValueError.

    Of a page of pods a hundred thousand objects are made, among which looking for garbage finds nothing and
    takes four times as long as reading them: so nobody looks meanwhile.
    """
    if len(data) < _LARGE or not gc.isenabled():
        return json.loads(data)
    gc.disable()
    try:
        return json.loads(data)
    finally:
        gc.enable()

"""Zip archives that come out the same, byte for byte, for the same files. Touches files only."""

import zipfile
from collections.abc import Iterable
from pathlib import Path

# The earliest time a zip can hold: a file's own time would make equal folders differ.
_TIME = (1980, 1, 1, 0, 0, 0)
_CHUNK = 2**20


def write_zip(target: Path, files: Iterable[tuple[str, Path]]) -> None:
    """Write the files under these names, sorted, with one fixed time and mode."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, path in sorted(files):
            entry = zipfile.ZipInfo(name, date_time=_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16
            entry.create_system = 3  # Unix, wherever this runs
            with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as packed:
                while chunk := source.read(_CHUNK):
                    packed.write(chunk)

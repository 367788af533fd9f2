"""A storage without local paths, as S3 is: a hand-written fake."""

import io

from django.core.files.base import ContentFile, File
from django.core.files.storage import Storage


class RemoteStorage(Storage):
    """Keeps contents in a dict. `path` is the base class's, which says that there are no paths."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.saves = 0

    def _open(self, name: str, mode: str = "rb") -> File:
        if name not in self.contents:
            raise FileNotFoundError(name)
        return File(io.BytesIO(self.contents[name]), name)

    def _save(self, name: str, content: ContentFile) -> str:
        self.saves += 1
        self.contents[name] = b"".join(content.chunks())
        return name

    def delete(self, name: str) -> None:
        self.contents.pop(name, None)

    def exists(self, name: str) -> bool:
        return name in self.contents

    def size(self, name: str) -> int:
        return len(self.contents[name])

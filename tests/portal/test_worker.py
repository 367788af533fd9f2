import importlib
import subprocess
import sys

from django.conf import settings
from django_rq.workers import get_worker_class

from portal.worker import NEEDED, PreparedWorker


def test_jobs_are_done_by_a_worker_that_has_what_they_need(monkeypatch) -> None:
    assert get_worker_class() is PreparedWorker
    imported: list[str] = []
    monkeypatch.setattr(importlib, "import_module", imported.append)
    monkeypatch.setattr(PreparedWorker.__bases__[0], "bootstrap", lambda self, *_: None)
    PreparedWorker.bootstrap(object.__new__(PreparedWorker))
    assert tuple(imported) == NEEDED


def test_what_is_shared_with_forked_jobs_has_no_threads() -> None:
    code = (
        "import django, importlib, threading; django.setup()\n"
        f"for name in {NEEDED!r}: importlib.import_module(name)\n"
        "assert threading.active_count() == 1, threading.enumerate()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=settings.CHECKOUT, check=True, timeout=60)

import importlib

from django_rq.workers import get_worker_class

from portal.worker import NEEDED, PreparedWorker


def test_jobs_are_done_by_a_worker_that_has_what_they_need(monkeypatch) -> None:
    assert get_worker_class() is PreparedWorker
    imported: list[str] = []
    monkeypatch.setattr(importlib, "import_module", imported.append)
    monkeypatch.setattr(PreparedWorker.__bases__[0], "bootstrap", lambda self, *_: None)
    PreparedWorker.bootstrap(object.__new__(PreparedWorker))
    assert tuple(imported) == NEEDED
    monkeypatch.undo()
    for name in NEEDED:
        importlib.import_module(name)

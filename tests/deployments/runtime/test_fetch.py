"""What brings a revision's files into a pod, against a server of the test's own."""

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deployments.drivers.kubernetes_pod import of_fetch
from deployments.runtime import fetch

MODEL = b"weights" * 50_000
QUICK = (0.01, 0.01, 0.01)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def a_zip(**files: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/").replace("_py", ".py"), text)
    return made.getvalue()


class Store:
    """Contents by name, and how each of the next answers goes wrong."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []  # (path, Range)
        self.wrongs: list[Callable[[BaseHTTPRequestHandler, bytes], None]] = []
        store = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0].lstrip("/")
                ranged = self.headers.get("Range", "")
                store.asked.append((path, ranged))
                data = store.contents.get(path)
                if store.wrongs:
                    store.wrongs.pop(0)(self, data or b"")
                    return
                if data is None:
                    self.send_error(404)
                    return
                begin = int(ranged[6:-1]) if ranged else 0
                self.send_response(206 if ranged else 200)
                self.send_header("Content-Length", str(len(data) - begin))
                self.end_headers()
                self.wfile.write(data[begin:])

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def wanted(self, path: str, data: bytes, *, unpack: bool = False) -> fetch.Wanted:
        self.contents[sha(data)] = data
        address = f"http://127.0.0.1:{self.server.server_port}/{sha(data)}?signature=hidden"
        return fetch.Wanted(path, sha(data), len(data), address, unpack)

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def store():
    made = Store()
    yield made
    made.close()


@pytest.fixture
def bring(tmp_path):
    said: list[str] = []

    def begin(*wanted: fetch.Wanted) -> list[str]:
        fetch.fetch(list(wanted), tmp_path, said.append, back_off=QUICK, silence=5.0)
        return said

    begin.said = said  # type: ignore[attr-defined]
    return begin


def breaks_off(answer: BaseHTTPRequestHandler, data: bytes) -> None:
    answer.send_response(200)
    answer.send_header("Content-Length", str(len(data)))
    answer.end_headers()
    answer.wfile.write(data[: len(data) // 2])


def status(code: int) -> Callable[[BaseHTTPRequestHandler, bytes], None]:
    return lambda answer, data: answer.send_error(code)


def garbles(answer: BaseHTTPRequestHandler, data: bytes) -> None:
    answer.send_response(200)
    answer.send_header("Content-Length", str(len(data)))
    answer.end_headers()
    answer.wfile.write(b"x" * len(data))


def test_models_and_the_project_folder_come_where_replicas_look_for_them(store, bring, tmp_path):
    said = bring(
        store.wanted("app", a_zip(score_py="run", sub__helper_py="help"), unpack=True),
        store.wanted("models/ridge/1/model.pkl", MODEL),
    )
    assert (tmp_path / "app" / "score.py").read_text() == "run"
    assert (tmp_path / "app" / "sub" / "helper.py").read_text() == "help"
    assert (tmp_path / "models" / "ridge" / "1" / "model.pkl").read_bytes() == MODEL
    assert sum("is here" in line for line in said) == 2
    assert "hidden" not in " ".join(said)


def test_an_empty_file_is_a_file(store, bring, tmp_path):
    bring(store.wanted("models/ridge/1/empty", b""))
    assert (tmp_path / "models" / "ridge" / "1" / "empty").read_bytes() == b""


def test_what_broke_off_goes_on_where_it_was(store, bring, tmp_path):
    store.wrongs = [breaks_off]
    bring(store.wanted("model", MODEL))
    assert (tmp_path / "model").read_bytes() == MODEL
    assert [ranged for _, ranged in store.asked] == ["", f"bytes={len(MODEL) // 2}-"]


def test_a_server_that_sends_all_of_it_again_is_no_trouble(store, bring, tmp_path):
    whole = lambda answer, data: (  # noqa: E731
        answer.send_response(200),
        answer.send_header("Content-Length", str(len(data))),
        answer.end_headers(),
        answer.wfile.write(data),
    )
    store.wrongs = [breaks_off, whole]
    bring(store.wanted("model", MODEL))
    assert (tmp_path / "model").read_bytes() == MODEL


def test_what_is_there_is_not_fetched_again(store, bring):
    wanted = store.wanted("app", a_zip(score_py="run"), unpack=True)
    bring(wanted)
    bring(wanted)
    assert len(store.asked) == 1


def test_a_server_that_is_away_for_a_moment_is_asked_again(store, bring, tmp_path):
    store.wrongs = [status(503), status(502)]
    bring(store.wanted("model", MODEL))
    assert (tmp_path / "model").exists()
    assert len(store.asked) == 3


@pytest.mark.parametrize(
    ("wrong", "code", "cause", "times"),
    [
        (garbles, fetch.WRONG, "FileChecksumWrong", 2),  # once may be the transfer's fault
        (status(403), fetch.REFUSED, "FileUrlExpired", 1),
        (status(404), fetch.MISSING, "FileNotFound", 1),
        (status(503), fetch.UNREACHABLE, "ModelStoreUnreachable", 4),
    ],
)
def test_what_went_wrong_is_said_by_its_code(store, bring, tmp_path, wrong, code, cause, times):
    store.wrongs = [wrong] * 10
    with pytest.raises(fetch.Trouble) as caught:
        bring(store.wanted("models/ridge/1/model.pkl", MODEL))
    assert caught.value.code == code
    assert "models/ridge/1/model.pkl" in caught.value.words
    assert "hidden" not in caught.value.words
    assert len(store.asked) == times
    assert not (tmp_path / "models" / "ridge" / "1" / "model.pkl").exists()
    told = of_fetch(code, caught.value.words)
    assert told.code == cause
    assert caught.value.words in told.message


def test_a_name_that_is_not_known_says_so(bring):
    nobody = fetch.Wanted("model", "a" * 64, 1, "http://portal.invalid/x", False)
    with pytest.raises(fetch.Trouble, match="name portal.invalid is not known"):
        bring(nobody)


def test_a_zip_that_leads_elsewhere_is_refused(store, bring, tmp_path):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("../outside", "x")
    with pytest.raises(fetch.Trouble) as caught:
        bring(store.wanted("app", made.getvalue(), unpack=True))
    assert caught.value.code == fetch.UNREADABLE
    assert not (tmp_path / "app").exists()
    assert not (tmp_path.parent / "outside").exists()


@pytest.mark.parametrize(
    "row",
    [
        {"path": "../x", "sha256": "a", "size": 1, "url": "http://x/"},
        {"path": "x", "sha256": "a", "size": 1, "url": "file:///etc/passwd"},
        {"path": "x"},
    ],
)
def test_a_list_that_asks_for_something_else_is_refused(tmp_path, row):
    (tmp_path / "files.json").write_text(json.dumps([row]))
    with pytest.raises(fetch.Trouble) as caught:
        fetch.read(tmp_path / "files.json")
    assert caught.value.code == fetch.TOLD_WRONG


def test_the_runtime_is_all_that_the_other_containers_import(tmp_path):
    fetch.install_runtime(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(fetch.RUNTIME_FILES)


def test_all_that_went_wrong_has_a_cause_of_its_own():
    codes = {
        getattr(fetch, name) for name in ("UNREACHABLE", "WRONG", "REFUSED", "MISSING", "FULL")
    }
    assert len({of_fetch(code, "words").code for code in codes}) == len(codes)
    assert "exit code 137" in of_fetch(137, "").message

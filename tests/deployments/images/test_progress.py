"""An Engine's events become few lines."""

from deployments.images.progress import Progress, build_lines


def layer(name: str, status: str, current: int = 0, total: int = 0) -> dict[str, object]:
    detail = {"current": current, "total": total} if total else {}
    return {"id": name, "status": status, "progressDetail": detail}


def test_bars_are_summed_up_every_two_seconds_and_ends_are_told() -> None:
    seen = Progress("Pushing", now=0.0)
    mib = 2**20
    assert seen.lines([layer("a", "Pushing", mib, 4 * mib), layer("b", "Waiting")], 1.9) == []
    assert seen.lines([layer("b", "Pushing", mib, 6 * mib)], 2.0) == ["Pushing: 2.0 of 10.0 MiB"]
    assert seen.lines([layer("a", "Pushed")], 2.5) == ["a: Pushed"]
    assert seen.lines([layer("c", "Layer already exists")], 3.0) == ["c: Layer already exists"]
    assert seen.lines([], 4.0) == ["Pushing: 5.0 of 10.0 MiB"]
    assert seen.lines([], 9.0) == []  # nothing is new


def test_the_digest_is_taken_from_wherever_it_is_said() -> None:
    pushed, pulled = Progress("Pushing", 0.0), Progress("Pulling", 0.0)
    pushed.lines([{"aux": {"Tag": "x", "Digest": "sha256:1"}}], 0.0)
    pulled.lines([{"status": "Digest: sha256:2"}], 0.0)
    assert (pushed.digest, pulled.digest) == ("sha256:1", "sha256:2")


def test_a_builds_output_is_lines_and_the_image_it_made() -> None:
    events = [
        {"stream": "Step 1/1 : FROM x\n"},
        {"stream": "\n"},
        {"stream": "half "},
        {"stream": "a line\n10%\r100%\n"},
        {"aux": {"ID": "sha256:7"}},
    ]
    assert build_lines(events) == (["Step 1/1 : FROM x", "half a line", "100%"], "sha256:7")

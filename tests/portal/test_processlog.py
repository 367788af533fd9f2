"""One log out of several files, followed while they grow and rotate."""

from pathlib import Path

from portal.processlog import ProcessLog


def test_lines_of_all_processes_come_with_their_names(tmp_path: Path):
    log = ProcessLog({"web": tmp_path / "web", "agent": tmp_path / "agent"}, colour=False)
    (tmp_path / "web").write_text("up\n")
    (tmp_path / "agent").write_text("one\ntwo\n")
    assert list(log.lines()) == ["web   | up", "agent | one", "agent | two"]
    log.close()


def test_a_line_is_shown_once_and_only_when_it_is_whole(tmp_path: Path):
    path = tmp_path / "web"
    path.write_text("")
    log = ProcessLog({"web": path}, colour=False)
    with path.open("a") as file:
        file.write("hal")
        file.flush()
        assert list(log.lines()) == []
        file.write("ves\n")
    assert list(log.lines()) == ["web | halves"]
    assert list(log.lines()) == []
    log.close()


def test_what_was_there_before_is_not_shown_again(tmp_path: Path):
    path = tmp_path / "web"
    path.write_text("old\n")
    log = ProcessLog({"web": path}, colour=False)
    with path.open("a") as file:
        file.write("new\n")
    assert list(log.lines()) == ["web | new"]
    log.close()


def test_a_rotation_loses_nothing(tmp_path: Path):
    path = tmp_path / "web"
    path.write_text("")
    log = ProcessLog({"web": path}, colour=False)
    with path.open("a") as file:
        file.write("before\n")
    path.rename(tmp_path / "web.1")
    path.write_text("after\n")
    lines = [*log.lines(), *log.lines()]
    assert lines == ["web | before", "web | after"]
    log.close()


def test_names_are_coloured_on_a_terminal(tmp_path: Path):
    log = ProcessLog({"web": tmp_path / "web"}, colour=True)
    (tmp_path / "web").write_text("up\n")
    assert list(log.lines()) == ["\x1b[36mweb | \x1b[0mup"]
    log.close()

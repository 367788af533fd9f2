"""The sockets' client against a HAProxy of a few lines."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deployments.errors import PermanentError, Unavailable
from router.haproxy.runtime import MasterSocket, RuntimeSocket, accepted, shown

ANSWERS = {
    "prompt": "",
    "show info": "Pid: 7\n",
    "set server be_0001/s1 state ready": "",
    "set server be_0001/s1 addr 127.0.0.1 port 9": "port changed from '1' to '9' by 'stats'\n",
    "set server be_9999/s1 state ready": "No such backend.\n",
}


@pytest.fixture
async def socket(tmp_path: Path) -> AsyncIterator[Path]:
    over = asyncio.Event()
    tasks: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        while line := (await reader.readline()).decode().strip():
            if line == "hang":
                await over.wait()
            if line in ("quit", "die", "hang"):
                break
            writer.write(f"{ANSWERS[line]}\n> ".encode())
            await writer.drain()
        writer.close()

    path = tmp_path / "ha.sock"
    server = await asyncio.start_unix_server(serve, path)
    yield path
    over.set()
    server.close()
    await asyncio.gather(*(task for task in tasks if task), return_exceptions=True)
    await asyncio.sleep(0)


async def test_answers_come_in_the_order_of_the_commands(socket: Path) -> None:
    asked = ["show info", "set server be_0001/s1 state ready", "show info"]
    assert await RuntimeSocket(socket).ask(asked) == ["Pid: 7\n", "", "Pid: 7\n"]
    assert await RuntimeSocket(socket).ask([]) == []


async def test_a_refusal_is_told_with_its_command(socket: Path) -> None:
    said = "set server be_9999/s1 state ready.*No such backend"
    with pytest.raises(PermanentError, match=said):
        await RuntimeSocket(socket).tell(
            ["set server be_0001/s1 state ready", "set server be_9999/s1 state ready"]
        )
    await RuntimeSocket(socket).tell(["set server be_0001/s1 addr 127.0.0.1 port 9"])


async def test_silence_and_a_cut_answer_are_unavailable(socket: Path, tmp_path: Path) -> None:
    for path, command in ((socket, "hang"), (socket, "die"), (tmp_path / "none", "show info")):
        with pytest.raises(Unavailable):
            await RuntimeSocket(path, deadline=0.2).ask([command])
    with pytest.raises(Unavailable):
        await MasterSocket(tmp_path / "none").ask("show proc")


@pytest.mark.parametrize(
    "said",
    [
        "Can't find the target PID matching the prefix '@!27398'\n",
        "Can't connect to the target CLI!\n",
    ],
)
async def test_a_worker_that_has_ended_says_nothing(tmp_path: Path, said: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.write(said.encode())
        writer.close()

    async with await asyncio.start_unix_server(serve, tmp_path / "master.sock"):
        master = MasterSocket(tmp_path / "master.sock")
        assert await master.ask("@!27398 show servers conn") == ""


def test_what_haproxy_says_when_it_agrees() -> None:
    assert accepted("set maxconn server be_0001/s1 2", "\n")
    assert accepted("del map routes.map x", "Key not found.\n")
    assert accepted("set server be_0001/s1 addr ::1 port 1", "no need to change the addr\n")
    assert not accepted("set server be_0001/s1 addr x port 1", "Invalid addr format 'x'\n")
    assert not accepted("add map routes.map x y", "Unknown map identifier.\n")


def test_a_digest_is_not_shown() -> None:
    assert shown(f"add map keys.map {'AB' * 32}:demo key") == "add map keys.map ***:demo key"
    assert shown("add map routes.map demo be_0001") == "add map routes.map demo be_0001"

"""Talks to HAProxy's sockets: the worker's for everything, the master's for reloads and old workers.

Each batch is one short connection: a connection kept open over a reload would go on talking to the
old worker. Every call has a deadline. What cannot be reached is `Unavailable`, what HAProxy refuses is
`PermanentError` with its own words; neither ever looks like an empty answer.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from deployments.errors import PermanentError, Unavailable

_PROMPT = b"\n> "
_DIGEST = re.compile(r"(?<![0-9A-Fa-f])[0-9A-Fa-f]{64}(?![0-9A-Fa-f])")
_BATCH = 400  # commands a connection
_BUFFER = 2**20
# what the master says of a worker that has ended just now
_NO_WORKER = ("Can't find the target", "Can't connect to the target")


class RuntimeSocket:
    """The worker's stats socket. `deadline` is seconds for a whole batch."""

    def __init__(self, path: Path, deadline: float = 3.0) -> None:
        self.path = path
        self.deadline = deadline

    async def ask(self, commands: Sequence[str]) -> list[str]:
        """The answer to each command, in order, all from the same worker (up to 400 of them)."""
        answers: list[str] = []
        for start in range(0, len(commands), _BATCH):
            answers += await self._batch(commands[start : start + _BATCH])
        return answers

    async def tell(self, commands: Sequence[str]) -> None:
        """Commands that change something. Raises PermanentError with the first one refused.

        They are pipelined: those after a refused one were carried out all the same, so a caller
        looks again before it says more.
        """
        for command, answer in zip(commands, await self.ask(commands), strict=True):
            if not accepted(command, answer):
                raise PermanentError(
                    f"HAProxy refused {shown(command)!r}: {answer.strip()[:300]}",
                    code="RouterRefused",
                )

    async def set_certificate(self, name: str, pem: str) -> None:
        """Have every new TLS connection use this certificate from now on: `pem` holds key and chain.

        Raises PermanentError with HAProxy's words, without the key; the one before goes on then.
        """
        payload = "".join(f"{line}\n" for line in pem.splitlines() if line.strip())
        told, committed = await self.ask(
            [f"set ssl cert {name} <<\n{payload}", f"commit ssl cert {name}"]
        )
        if "Success!" not in committed:
            await self.ask([f"abort ssl cert {name}"])
            words = " ".join(f"{told} {committed}".replace("+ ", "").split())
            raise PermanentError(
                f"HAProxy refused the certificate: {words[:300]}", code="RouterRefused"
            )

    async def _batch(self, commands: Sequence[str]) -> list[str]:
        async with _connection(self.path, self.deadline) as (reader, writer):
            lines = "".join(f"{line}\n" for line in ("prompt", *commands))
            writer.write(lines.encode())
            answers = [await reader.readuntil(_PROMPT) for _ in range(len(commands) + 1)]
            writer.write(b"quit\n")
        return [answer.removesuffix(_PROMPT).decode(errors="replace") for answer in answers[1:]]


class MasterSocket:
    """The master's socket: knows its workers, old ones included."""

    def __init__(self, path: Path, deadline: float = 3.0) -> None:
        self.path = path
        self.deadline = deadline

    async def ask(self, command: str, deadline: float | None = None) -> str:
        """One command's answer. `@!<pid> ...` goes to that worker; "" when that has ended."""
        async with _connection(self.path, deadline or self.deadline) as (reader, writer):
            writer.write(f"{command}\n".encode())
            writer.write_eof()
            answer = (await reader.read(-1)).decode(errors="replace")
        return "" if answer.startswith(_NO_WORKER) else answer

    async def reload(self, deadline: float = 20.0) -> None:
        """Have a new worker take over. Raises PermanentError when it would not start."""
        answer = await self.ask("reload", deadline)
        if not answer.startswith("Success=1"):
            raise PermanentError(
                "HAProxy would not take its new configuration; the old one serves on.",
                code="RouterReloadFailed",
                evidence=answer,
            )


def accepted(command: str, answer: str) -> bool:
    """HAProxy says nothing when it agrees, but for an address, which it tells back."""
    said = answer.strip()
    if not said:
        return True
    words = command.split()
    if words[:2] == ["set", "server"] and "addr" in words:
        return said.startswith(("no need to change", "IP changed", "port changed"))
    return words[:2] == ["del", "map"] and said.startswith("Key not found")


def shown(command: str) -> str:
    """The command as a log may hold it: digests of keys and tokens are nobody's business."""
    return _DIGEST.sub("***", command)


@contextlib.asynccontextmanager
async def _connection(
    path: Path, deadline: float
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(deadline):
            reader, writer = await asyncio.open_unix_connection(path, limit=16 * _BUFFER)
            yield reader, writer
    except TimeoutError as error:
        raise Unavailable(f"HAProxy did not answer on {path} within {deadline:g} s.") from error
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise Unavailable(f"HAProxy cannot be reached on {path}: {error}") from error
    finally:
        if writer is not None:
            writer.close()

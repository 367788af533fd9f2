"""Closed-loop load by wrk: as many requests as go through, on a fixed number of connections."""

import http.client
import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.routing.figures import Round
from bench.routing.processes import BenchError, Cores, cpu_seconds

BODY = '{"data": [[1.0, 2.0, 3.0, 4.0, 5]]}'
CONNECTIONS = 64
# wrk asks for an address; the script never comes back from where it would be used
REPLICA = ("wrk", "-s", str(Path(__file__).with_name("replica.lua")), "http://127.0.0.1:1/")
SCORE = "/api/v1/service/bench/score"

# wrk formats the request once; nothing of this runs for each of them
_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer %s"
%slocal size = %d
wrk.body = size > 0 and string.rep("x", size) or '%s'
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\\nsummary {"requests": %%d, "us": %%d, "p50_us": %%d, "p99_us": %%d,' ..
    ' "connect": %%d, "read": %%d, "write": %%d, "status": %%d, "timeout": %%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to be measured. `pids` are the processes whose CPU time is its own."""

    name: str
    port: int
    pids: tuple[int, ...]
    token: str = "none"
    path: str = SCORE
    headers: tuple[tuple[str, str], ...] = ()  # beside those that every request has


def answering(target: Target) -> Target:
    """The target itself, once one request of its kind was answered 200. Raises BenchError."""
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=10)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {target.token}"}
    headers |= dict(target.headers)
    try:
        connection.request("POST", target.path, BODY, headers)
        answer = connection.getresponse()
        said = answer.read(300).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise BenchError(
            f"{target.name} does not answer: {error or type(error).__name__}"
        ) from error
    finally:
        connection.close()
    if answer.status != 200:
        raise BenchError(f"{target.name} answers {answer.status}: {said}")
    return target


def wrk(
    target: Target,
    seconds: float,
    cores: Cores,
    folder: Path,
    *,
    connections: int = CONNECTIONS,
    body_size: int = 0,
) -> Round:
    script = folder / "wrk.lua"
    extra = "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in target.headers)
    script.write_text(_SCRIPT % (target.token, extra, body_size, BODY))
    before = cpu_seconds(target.pids)
    done = subprocess.run(
        ["taskset", "-c", str(cores.load), "wrk", "-t1", f"-c{connections}",
         f"-d{max(1, round(seconds))}s", "--timeout", "10s", "-s", script,
         f"http://127.0.0.1:{target.port}{target.path}"],
        capture_output=True, text=True, check=False, timeout=seconds + 60,
    )  # fmt: skip
    used = cpu_seconds(target.pids) - before
    told = [line for line in done.stdout.splitlines() if line.startswith("summary ")]
    if done.returncode or not told:
        raise BenchError(f"wrk failed against {target.name}: {(done.stderr or done.stdout)[-400:]}")
    return read_summary(json.loads(told[0].removeprefix("summary ")), used, target.name)


def read_summary(told: dict[str, int], used: float, name: str) -> Round:
    """wrk's own numbers (microseconds) and the seconds of CPU that the proxy used meanwhile."""
    failed = sum(told[kind] for kind in ("connect", "read", "write", "status", "timeout"))
    good = told["requests"] - told["status"]
    if good <= 0:
        raise BenchError(f"{name} answered no request ({failed} failed)")
    return Round(
        rps=good / told["us"] * 1e6,
        p50_ms=told["p50_us"] / 1e3,
        p99_ms=told["p99_us"] / 1e3,
        cpu_us=used / good * 1e6,
        busy=used / told["us"] * 1e6,
        failed=failed,
        requests=told["requests"],
    )


def interleaved(
    targets: Iterable[Target],
    rounds: int,
    seconds: float,
    cores: Cores,
    folder: Path,
    *,
    connections: int = CONNECTIONS,
    body_size: int = 0,
) -> dict[str, list[Round]]:
    """A B C, A B C, ...: whatever drifts on this machine hits all of them alike."""
    found: dict[str, list[Round]] = {target.name: [] for target in targets}
    for _ in range(rounds):
        for target in targets:
            found[target.name].append(
                wrk(target, seconds, cores, folder, connections=connections, body_size=body_size)
            )
    return found

"""What every group of measurements shares: programs, cores, lengths, and where the figures go."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from bench.routing import figures, ours
from bench.routing.figures import Round
from bench.routing.load import SCORE, Target
from bench.routing.processes import Cores, Programs


@dataclass(frozen=True, slots=True)
class Length:
    """How many rounds, and how many seconds each takes."""

    rounds: int = 5
    throughput: int = 5
    added: int = 5
    body: int = 3
    ray: int = 5
    new_connections: int = 60
    beside: bool = True  # also measure what no goal speaks of


FULL = Length()
QUICK = Length(rounds=3, throughput=2, added=2, body=1, ray=1, new_connections=6, beside=False)


@dataclass
class Context:
    """One run. `say` gets each table as it comes; `measured` and `tables` keep all of them.

    `product` is our router before small requests, `pids` its HAProxy, `upstream` the port of the replica
    behind it and behind the peers.
    """

    programs: Programs
    cores: Cores
    length: Length
    wanted: Collection[str]
    say: Callable[[str], object]
    product: ours.Ours
    pids: tuple[int, ...]
    upstream: int
    measured: dict[str, float | None] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    tables: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def ours(self, name: str = "ours", token: str = ours.KEY, path: str = SCORE) -> Target:
        return Target(name, self.product.port, self.pids, token, path)

    def missing(self, keys: Collection[str], error: Exception) -> None:
        """These figures cannot be had. The first reason counts."""
        for key in set(keys) & set(self.wanted):
            self.measured[key] = None
            self.reasons.setdefault(key, str(error))
        self.say(f"Not measured: {', '.join(sorted(keys))}: {error}")

    def rounds(self, title: str, rounds: dict[str, list[Round]]) -> None:
        self.table(title, figures.rounds_table(rounds))

    def table(self, title: str, lines: list[tuple[str, ...]]) -> None:
        self.tables[title] = lines
        self.say(f"\n{title}\n{figures.text_table(lines)}")

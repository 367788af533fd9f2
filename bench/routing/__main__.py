"""The command: `bench/router`."""

import argparse
import tempfile
from pathlib import Path
from statistics import median

from bench.routing import load, ours, peers
from bench.routing.load import Target
from bench.routing.processes import Cores, Programs, free_port


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench/router")
    parser.add_argument("--only", action="append", metavar="FIGURE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2)
    arguments = parser.parse_args()
    cores = Cores.choose()
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as name:
        folder = Path(name)
        with Programs(folder) as programs:
            port, _ = peers.upstream(programs, folder, cores.load)
            addresses = (f"127.0.0.1:{port}",) * ours.REPLICAS
            bare = peers.bare_haproxy(programs, folder, cores.proxy, addresses, server_close=False)
            product = ours.Ours(folder / "home", free_port(), cores.proxy, addresses)
            programs.on_exit(product.close)
            pids = product.start()
            targets = [
                Target("bare", *bare),
                Target("ours", product.port, pids, ours.KEY),
            ]
            found = load.interleaved(targets, arguments.rounds, arguments.seconds, cores, folder)
            for target in targets:
                rows = found[target.name]
                print(
                    f"{target.name:8} {median(r.rps for r in rows):9,.0f} req/s  "
                    f"p50 {median(r.p50_ms for r in rows):.2f} p99 {median(r.p99_ms for r in rows):.2f} ms  "
                    f"{median(r.cpu_us for r in rows):6.2f} us/request  "
                    f"core {median(r.busy for r in rows):4.0%}  failed {sum(r.failed for r in rows)}"
                )
            a, b = found["bare"], found["ours"]
            print(
                f"vs_haproxy {median(r.rps for r in b) / median(r.rps for r in a):.3f}  "
                f"by CPU {median(r.cpu_us for r in a) / median(r.cpu_us for r in b):.3f}"
            )


if __name__ == "__main__":
    main()

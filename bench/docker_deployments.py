"""Deployments on a Docker cluster of a Slipway in a home of its own; see `bench/docker`."""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
SCRIPT = "def init(): ...\n\n\ndef run(data):\n    return data\n"
CLUSTER = "docks"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def manage(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=CHECKOUT,
        check=True,
        timeout=300,
        stdout=subprocess.DEVNULL,
    )


def wait(what: str, seconds: float, condition: Any) -> Any:
    deadline = time.time() + seconds
    while time.time() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise SystemExit(f"not within {seconds:g} s: {what}")


class Bench:
    """What people do, through the product's own functions, in this process."""

    def __init__(self) -> None:
        sys.path.insert(0, str(CHECKOUT))
        os.environ["DJANGO_SETTINGS_MODULE"] = "portal.settings"
        import django

        django.setup()
        from django.conf import settings

        from deployments.clusters import changes, ports
        from deployments.clusters.models import Sku
        from deployments.environments.changes import create_environment
        from deployments.registry.versions import register_files, register_version
        from deployments.services import sources
        from deployments.types import EngineSpec
        from portal.cluster_programs import follow_now

        port = ports.next_free()
        self.cluster = changes.attach(
            None,
            name=CLUSTER,
            kind="docker",
            sku=Sku.objects.get(name="this machine"),
            router_url=f"http://127.0.0.1:{port}",
            engine=EngineSpec(settings.ENV.docker_host),
            router_port=port,
        )
        follow_now()
        self.environment = create_environment(None, name="bench", pip_requirements="")
        weights = settings.HOME.uploads / "weights.bin"
        weights.write_bytes(os.urandom(4096))
        self.model = register_version(
            None, name="weights", files=register_files({"weights.bin": weights})
        )
        self.source = sources.from_text({"score.py": SCRIPT})

    def agent_lives(self) -> bool:
        from deployments.clusters.drivers import driver_for

        seen = driver_for(self.cluster).observe().supervisor_at
        return seen is not None and driver_for(self.cluster).routes() is not None

    def deploy(self, name: str) -> int:
        from deployments.services.changes import DeployRequest, deploy

        request = DeployRequest(
            name=name,
            cluster=self.cluster,
            model_versions=(self.model,),
            source=self.source,
            entry_script="score.py",
            environment=self.environment,
            config={
                "cpu_cores": 0.05,
                "memory_gb": 0.1,
                "autoscale_enabled": False,
                "num_replicas": 1,
            },
        )
        made = deploy(None, request)
        return int(made.pk)

    def seconds(self, deployments: list[int], patience: float) -> list[float]:
        """From submitting to Healthy of each."""
        from deployments.services.models import Deployment

        def done() -> Any:
            rows = list(Deployment.objects.filter(pk__in=deployments))
            return rows if all(row.finished_at for row in rows) else None

        rows = wait("deployments to finish", patience, done)
        for row in rows:
            if row.state != "succeeded":
                raise SystemExit(f"{row}: {row.state}: {row.cause}\n{row.evidence}")
        return [(row.finished_at - row.created_at).total_seconds() for row in rows]

    def detach(self) -> None:
        """Nothing is left on the Engine, the environment's image neither."""
        from deployments.clusters.changes import detach
        from deployments.environments.changes import delete_environment
        from deployments.images.models import ImageBuild
        from deployments.images.retention import tidy
        from deployments.services.changes import delete_service
        from deployments.services.models import Service
        from portal.cluster_programs import ClusterPrograms

        for service in Service.objects.all():
            delete_service(None, service)
        wait("the services to go", 120, lambda: not Service.objects.exists())
        detach(None, self.cluster)
        root = Path(os.environ["SLIPWAY_HOME"]) / "clusters" / CLUSTER

        def gone() -> bool:
            ClusterPrograms().follow()
            return not root.exists()

        wait("the cluster to be taken apart", 60, gone)
        delete_environment(None, self.environment)
        tidy()
        if ImageBuild.objects.exists():
            raise SystemExit("the image of a deleted environment stayed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--together", type=int, default=5, help="deployments at once (5)")
    parser.add_argument("--keep", action="store_true", help="leave the home folder")
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="bench-docker-"))
    os.environ |= {
        "SLIPWAY_HOME": str(home),
        "SLIPWAY_PORT": str(free_port()),
        "SLIPWAY_ROUTER_PORT": str(free_port()),
        "SLIPWAY_SEED": "False",
    }
    try:
        manage("up", "--detach")
        bench = Bench()
        wait("the agent and the router", 60, bench.agent_lives)
        first = bench.seconds([bench.deploy("first")], 1800)[0]
        cached = [
            bench.seconds([bench.deploy(f"cached-{number}")], 120)[0]
            for number in range(given.rounds)
        ]
        many = [bench.deploy(f"together-{number}") for number in range(given.together)]
        together = bench.seconds(many, 300)
        bench.detach()
    finally:
        manage("down", "--quiet")
        root = home / "clusters" / CLUSTER
        if (root / "engine.json").exists():  # it was cut off
            from deployments.agent.dismantling import dismantle

            dismantle(root)
        if not given.keep:
            shutil.rmtree(home, ignore_errors=True)
    figures = {
        "environment": bench.environment.hash,
        "first_seconds": round(first, 2),
        "cached_seconds": [round(item, 2) for item in cached],
        "cached_median_seconds": round(statistics.median(cached), 2),
        "at_once_seconds": sorted(round(item, 2) for item in together),
        "at_once_all_seconds": round(max(together), 2),
    }
    print(f"first deployment of an environment: {first:.1f} s")
    print(f"cached, submit to Healthy: {statistics.median(cached):.1f} s (median of {len(cached)})")
    print(f"{len(together)} at once: {min(together):.1f} to {max(together):.1f} s")
    if given.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()

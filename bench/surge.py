"""A surge against a real Slipway in a home of its own; see `bench/surge`."""

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
SCRIPT = """
import time


def init():
    pass


def run(data):
    time.sleep(0.1)
    return {"ok": True}
"""
# wrk counts what is not 2xx or 3xx only as one number
LUA = """
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init(args) codes = {} end
function response(status) codes[status] = (codes[status] or 0) + 1 end
wrk.method, wrk.body = "POST", '{"data": [1]}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. os.getenv("SURGE_KEY")
function done(summary)
  for _, thread in ipairs(threads) do
    for code, count in pairs(thread:get("codes")) do io.write("code ", code, " ", count, "\\n") end
  end
end
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def manage(*arguments: str) -> None:
    subprocess.run([sys.executable, "manage.py", *arguments], cwd=CHECKOUT, check=True, timeout=180,
                   stdout=subprocess.DEVNULL)  # fmt: skip


def wait(what: str, seconds: float, condition: Any) -> Any:
    deadline = time.time() + seconds
    while time.time() < deadline:
        if found := condition():
            return found
        time.sleep(0.2)
    raise SystemExit(f"gave up after {seconds:.0f} s: {what}")


class Bench:
    """Talks to the rows of the Slipway that `main` started; Django is set up by then."""

    def __init__(self, script: str = SCRIPT) -> None:
        from deployments.clusters.catalogue import THIS_MACHINE
        from deployments.clusters.changes import attach
        from deployments.clusters.models import Sku
        from deployments.environments.changes import create_environment
        from deployments.registry.versions import register_files, register_version
        from portal.example import router_url

        self.cluster = attach(
            None, name="local", sku=Sku.objects.get(name=THIS_MACHINE), router_url=router_url()
        )
        with tempfile.NamedTemporaryFile(delete=False) as file:
            file.write(b"any bytes")
        self.version = register_version(
            None, name="sleeper", files=register_files({"model.bin": Path(file.name)})
        )
        self.environment = create_environment(None, name="sleeper", pip_requirements="numpy\n")
        self.script = script

    def deploy(self, name: str, config: dict[str, Any] | None = None) -> float:
        """Deploys and waits; seconds from submit to Healthy."""
        from deployments.services import sources
        from deployments.services.changes import DeployRequest, deploy
        from deployments.services.models import Deployment

        deployment = deploy(
            None,
            DeployRequest(
                name=name,
                cluster=self.cluster,
                model_versions=(self.version,),
                source=sources.from_text({"score.py": self.script}),
                entry_script="score.py",
                environment=self.environment,
                config=config or {},
            ),
        )

        def finished() -> Deployment | None:
            row = Deployment.objects.get(pk=deployment.pk)
            return row if row.finished else None

        row = wait(f"deployment of {name}", 180, finished)
        if row.state != "succeeded":
            raise SystemExit(f"{name} failed: {row.cause}\n{row.evidence}")
        return float((row.finished_at - row.created_at).total_seconds())

    def key(self, name: str) -> str:
        from deployments.services import keys
        from deployments.services.models import Service

        return keys.read(Service.objects.get(name=name))[0]

    def remove(self, name: str) -> None:
        from deployments.services.changes import delete_service
        from deployments.services.models import Service

        delete_service(None, Service.objects.get(name=name))
        wait(f"removal of {name}", 60, lambda: not Service.objects.filter(name=name).exists())

    def seconds(self, since: float) -> list[Any]:
        from router.telemetry.models import Second

        return list(
            Second.objects.filter(series__service="sleeper", at__gte=int(since) - 1).order_by("at")
        )

    def decisions(self, since: float) -> list[Any]:
        from router.telemetry.models import Decision

        return list(
            Decision.objects.filter(series__service="sleeper", at__gte=since).order_by("at")
        )


def load(uri: str, key: str, seconds: int) -> tuple[float, float, dict[str, int]]:
    """wrk with three connections; when it began and ended, and answers by code."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(LUA)
        script.flush()
        began = time.time()
        done = subprocess.run(
            ["wrk", "-t1", "-c3", f"-d{seconds}s", "--timeout", "10s", "-s", script.name, uri],
            env={**os.environ, "SURGE_KEY": key},
            capture_output=True, text=True, check=True, timeout=seconds + 30,
        )  # fmt: skip
    codes = {
        line.split()[1]: int(line.split()[2])
        for line in done.stdout.splitlines()
        if line.startswith("code ")
    }
    errors = [line.strip() for line in done.stdout.splitlines() if "Socket errors" in line]
    if errors:
        print(errors[0])
    return began, time.time(), codes


def surge(bench: Bench, seconds: int) -> dict[str, Any]:
    from deployments.services.models import Service

    uri = Service.objects.select_related("cluster").get(name="sleeper").scoring_uri
    began, ended, codes = load(uri, bench.key("sleeper"), seconds)

    def back() -> float | None:
        rows = bench.seconds(ended)
        return next((row.at + 1 for row in rows if row.ready == 1 and row.desired == 1), None)

    one_again = wait("back to one replica", 240, back)
    first_up = next(item for item in bench.decisions(began) if item.after > item.before)
    rows = bench.seconds(began)
    two_ready = next(row.at + 1 for row in rows if row.ready >= 2)
    timeline: list[tuple[int, int, int]] = []
    for row in rows:
        point = (row.at - int(began), round(row.ready), round(row.desired))
        if not timeline or timeline[-1][1:] != point[1:]:
            timeline.append(point)
    return {
        "asked_s": round(first_up.at - began, 2),
        "ready_s": round(two_ready - began, 1),
        "codes": codes,
        "back_to_one_s": round(one_again - ended, 0),
        "timeline": timeline,
        "decisions": [
            (round(item.at - began, 1), item.before, item.after, item.reason)
            for item in bench.decisions(began)
        ],
    }


def picture(portal: str, password: str, path: Path) -> None:
    from playwright.sync_api import sync_playwright

    sys.path.insert(0, str(CHECKOUT / "scripts"))
    from screenshots import save, sign_in

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        sign_in(page, portal, "admin", password)
        page.goto(f"{portal}/services/sleeper/metrics/?range=5m")
        page.wait_for_timeout(3000)
        save(page, path)
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20 s of load, one cached deployment")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--picture", type=Path, help="save the Metrics tab there")
    parser.add_argument("--keep", action="store_true", help="leave it running")
    arguments = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="slipway-surge-"))
    portal_port, router_port = free_port(), free_port()
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "SLIPWAY_HOME": str(home),
        "SLIPWAY_PORT": str(portal_port),
        "SLIPWAY_ROUTER_PORT": str(router_port),
        "SLIPWAY_SEED": "False",
    }
    manage("up", "--detach")
    try:
        sys.path.insert(0, str(CHECKOUT))
        import django

        django.setup()
        bench = Bench()
        result: dict[str, Any] = {"first_deployment_s": bench.deploy("sleeper")}
        cached = []
        for number in range(1 if arguments.quick else 5):
            cached.append(bench.deploy(f"cached-{number}"))
            bench.remove(f"cached-{number}")
        result["cached_deployment_s"] = round(statistics.median(cached), 2)
        time.sleep(5)
        result |= surge(bench, 20 if arguments.quick else 60)
        if arguments.picture:
            picture(
                f"http://127.0.0.1:{portal_port}",
                (home / "admin_password").read_text().strip(),
                arguments.picture,
            )
        report(result)
        if arguments.json:
            print(json.dumps(result))
    finally:
        if arguments.keep:
            print(
                f"Still running at http://127.0.0.1:{portal_port}; SLIPWAY_HOME={home} scripts/stop"
            )
        else:
            manage("down", "--quiet")
            shutil.rmtree(home, ignore_errors=True)


def report(result: dict[str, Any]) -> None:
    print(f"first deployment, environment built      {result['first_deployment_s']:6.1f} s")
    print(f"deployment with a cached environment     {result['cached_deployment_s']:6.1f} s")
    print(f"load to the first scale call             {result['asked_s']:6.2f} s")
    print(f"load to the second replica ready         {result['ready_s']:6.1f} s")
    print(f"end of load to one replica again         {result['back_to_one_s']:6.0f} s")
    print("answers: " + ", ".join(f"{code}: {n}" for code, n in sorted(result["codes"].items())))
    print("replicas over time (second: ready/wanted): ", end="")
    print("  ".join(f"{at}: {ready}/{desired}" for at, ready, desired in result["timeline"]))
    for at, before, after, reason in result["decisions"]:
        print(f"  {at:6.1f} s  {before} -> {after}  {reason}")


if __name__ == "__main__":
    main()

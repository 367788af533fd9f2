"""What a look at such a cluster costs the portal's controller: a fresh driver in a process of its own.

python -m bench.clusterscale.look KUBECONFIG        one object of JSON on standard output
"""

import gc
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.clusterscale import shapes
from deployments.drivers.kubernetes import KubernetesDriver
from deployments.errors import SlipwayError
from deployments.kube import access
from deployments.kube.api import Kube


def main() -> None:
    kube = Kube(access.parse(Path(sys.argv[1]).read_text()))
    driver = KubernetesDriver(kube, shapes.SETTINGS, cluster=shapes.CLUSTER)
    before = _rss()
    found: dict[str, Any] = {}

    def timed(name: str, do: Callable[[], Any]) -> Any:
        began, used = time.monotonic(), time.process_time()
        answer = do()
        found[f"{name}_s"] = round(time.monotonic() - began, 3)
        found[f"{name}_cpu_s"] = round(time.process_time() - used, 3)
        return answer

    observation = timed("first_look", lambda: _patiently(driver.observe))
    found["services"] = len(observation.services)
    found["replicas"] = sum(len(item.replicas) for item in observation.services)
    timed("next_look", driver.observe)
    timed("drift_first", driver.drifted)
    timed("drift_next", driver.drifted)
    timed("room_first", lambda: _patiently(driver.capacity))
    timed("room_next", driver.capacity)
    kube.patch(
        f"/api/v1/namespaces/{shapes.NAMESPACE}/pods/{observation.services[0].replicas[0].id}",
        {"metadata": {"annotations": {"slipway.dev/looked": str(time.time())}}},
    )
    stamp, end = driver.stamp(), time.monotonic() + 5
    while driver.stamp() == stamp and time.monotonic() < end:
        time.sleep(0.01)
    timed("look_after_a_change", driver.observe)
    gc.collect()
    found["rss_mib"] = round(_rss() - before)
    found["rss_most_mib"] = round(
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    )
    print(json.dumps(found))
    driver.close()


def _patiently(look: Callable[[], Any]) -> Any:
    """A first look gives up after a few seconds, and the controller comes again."""
    end = time.monotonic() + 600
    while time.monotonic() < end:
        try:
            return look()
        except SlipwayError:
            time.sleep(0.05)
    raise SystemExit("nothing was seen within 600 s")


def _rss() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


if __name__ == "__main__":
    main()

"""Ray Serve with an application that does nothing, behind its Python proxy.

Runs in an environment of its own:

ray_app.py PORT FOLDER
"""

import signal
import sys
import threading

import ray
from ray import serve


@serve.deployment(num_replicas=1, max_ongoing_requests=100)
class Nothing:
    async def __call__(self, request: object) -> dict[str, list[float]]:
        return {"result": [1.0]}


def main(port: int, folder: str) -> None:
    stopped = threading.Event()
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 * 2**20,
        _temp_dir=folder,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(Nothing.bind(), name="bench", route_prefix="/")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    stopped.wait()
    ray.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])

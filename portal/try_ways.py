"""Which way a request from the Test page goes: to the router's address, or, where that cannot be reached from
here, through the API server's proxy to a pod of the router.

The second way is for routers inside clusters alone, and only where nothing was sent on the first: a request
is never sent twice. It holds the body in memory at both ends, so it is for small ones. Blocking parts run in
threads. Reads rows; changes nothing.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import IO, Any

import httpx
from asgiref.sync import sync_to_async

from deployments.clusters.models import Cluster
from deployments.errors import SlipwayError, Unavailable
from deployments.services.models import Service
from portal import scoring
from portal.router_doors import pod_doors
from portal.scoring import Attempt
from router import trying

_CONNECT = 2.0  # seconds, where there is another way
_HOP = 5.0  # seconds that the way there and back may take


async def send(service: Service, asked: Mapping[str, Any]) -> Attempt:
    """`asked` is what `scoring.score` takes. Never raises for what the network does."""
    inside = service.cluster.kind == Cluster.Kind.KUBERNETES
    uri = service.scoring_uri
    why = "the router has no address yet"
    if uri:
        wait = _CONNECT if inside else scoring.CONNECT
        found = await scoring.score(uri, **asked, connect=wait)
        if not (inside and found.unreached):
            return replace(found, way=f"Sent to {service.cluster.address}.")
        why = f"{service.cluster.address} cannot be reached from this portal"
    return await sync_to_async(_through_the_api_server, thread_sensitive=False)(service, asked, why)


def _through_the_api_server(service: Service, asked: Mapping[str, Any], why: str) -> Attempt:
    way = f"Sent through the API server’s proxy, as {why}."
    if asked["size"] > trying.LARGEST:
        return Attempt(
            error=f"Through the API server’s proxy a request may have {trying.LARGEST // 2**20} MiB; this "
            f"one is larger, and {why}.",
        )
    began = time.monotonic()
    try:
        pods = pod_doors(service.cluster)
        if not pods:
            raise Unavailable("No pod of the router takes requests.")
        name, door = min(pods.items())
        head = trying.Asked(
            service=service.name,
            content_type=asked["content_type"],
            key=asked["key"],
            version=asked["version"],
            seconds=asked["deadline"],
        )
        data = trying.to_wire(head, _bytes(asked["body"]))
        answered, raw = trying.answered_of(door.post("/try", data, asked["deadline"] + _HOP))
    except SlipwayError as error:
        return Attempt(
            total=time.monotonic() - began,
            error=f"{error.message} A router of an older image cannot be tried this way.",
            way=way,
        )
    except ValueError as error:
        return Attempt(
            total=time.monotonic() - began,
            error=f"What the router’s pod answered cannot be read: {error}.",
            way=way,
        )
    way = (
        f"Sent through the API server’s proxy to the router’s pod {name}, as {why}. "
        f"The time is that pod’s; the way there and back took {_milliseconds(began, answered)} ms more."
    )
    if answered.status is None:
        return Attempt(total=answered.seconds, error=answered.error, way=way)
    answer = httpx.Response(answered.status, headers=list(answered.headers))
    return replace(scoring.attempt(answer, raw, answered.cut, answered.seconds), way=way)


def _milliseconds(began: float, answered: trying.Answered) -> int:
    return max(0, round((time.monotonic() - began - answered.seconds) * 1000))


def _bytes(body: bytes | IO[bytes]) -> bytes:
    if isinstance(body, bytes):
        return body
    body.seek(0)
    return body.read(trying.LARGEST + 1)

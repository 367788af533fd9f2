"""Tables, a viewer, and two services, `long` and `short` by their deployment's log, the latter with a
replica that was started again; for the browser's test.

Prints the session cookie's name and value and the deployments' ids.
"""

import json
import sys
from importlib import import_module
from typing import Any

import django


def prepare(lines: int) -> str:
    from django.conf import settings
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.core.management import call_command

    from deployments import logstore
    from deployments.clusters.models import Cluster, Sku
    from deployments.services.models import Service
    from portal.models import User
    from tests.portal.logs.conftest import deploy

    call_command("migrate", run_syncdb=True, verbosity=0)
    sku, _ = Sku.objects.get_or_create(name="This machine", defaults={"family": "CPU"})
    cluster = Cluster.objects.create(name="local", sku=sku, router_url="http://none")
    deployment, other = (
        deploy(Service.objects.create(name=name, cluster=cluster)) for name in ("long", "short")
    )
    _crash(Service.objects.get(name="short"))
    logstore.append(settings.HOME.deployment_log(other.pk), [logstore.LogEntry(1.0, "build", "a")])
    logstore.append(
        settings.HOME.deployment_log(deployment.pk),
        [
            logstore.LogEntry(
                1_700_000_000 + number / 100,
                "pipeline" if number % 2 else "build",
                f"line {number} " + ("x" * 400 if number % 10 == 0 else "<b>short</b>"),
            )
            for number in range(lines)
        ],
    )
    viewer = User.objects.create(username="vera", role="viewer")
    session: Any = import_module(settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY] = str(viewer.pk)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = viewer.get_session_auth_hash()
    session.save()
    return f"{settings.SESSION_COOKIE_NAME} {session.session_key} {deployment.pk} {other.pk}"


def _crash(service: Any) -> None:
    """A replica of it that was started again, as its agent would have left it."""
    from django.conf import settings

    from deployments.codec import to_json
    from deployments.types import Exit, Phase, Replica, Resources

    replica = Replica(
        "short-r1-x", "short", "default", 1, Phase.READY, restarts=1, last_exit=Exit(1, 0, 20.0)
    )
    folder = settings.HOME.cluster("local") / "replicas" / replica.id
    (folder / "log").mkdir(parents=True)
    stored = {"replica": to_json(replica), "resources": to_json(Resources())}
    (folder / "replica.json").write_text(json.dumps(stored))
    for run, at, text in ((1, 10.0, "why it died"), (2, 30.0, "alive again")):
        line = json.dumps({"n": run, "at": at, "s": "e", "t": text})
        (folder / "log" / f"{run}-{run}.jsonl").write_text(f"{line}\n")
    service.replicas = [stored["replica"]]
    service.save()


if __name__ == "__main__":
    django.setup()
    print(prepare(int(sys.argv[1])))

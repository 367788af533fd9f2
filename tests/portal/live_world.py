"""A portal with one viewer and one service, for the browser's live test.

Makes the tables, prints the viewer's session key, then does what each line on stdin says:
`state <word>` changes the service and announces it, `deactivate` deactivates the viewer.
"""

import sys
from importlib import import_module
from typing import Any

import django


def prepare() -> str:
    from django.conf import settings
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.core.management import call_command

    from deployments.clusters.models import Cluster, Sku
    from deployments.services.models import Service
    from portal.models import User

    call_command("migrate", run_syncdb=True, verbosity=0)
    sku, _ = Sku.objects.get_or_create(name="This machine", defaults={"family": "CPU"})
    cluster = Cluster.objects.create(name="local", sku=sku, router_url="http://none")
    Service.objects.create(name="diabetes", cluster=cluster)
    viewer = User.objects.create(username="vera", role="viewer")
    session: Any = import_module(settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY] = str(viewer.pk)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = viewer.get_session_auth_hash()
    session.save()
    return f"{settings.SESSION_COOKIE_NAME} {session.session_key}"


def obey(line: str) -> None:
    from deployments.services.models import Service
    from deployments.signals import announce
    from portal.models import User

    verb, _, word = line.partition(" ")
    if verb == "state":
        Service.objects.update(state=word)
        announce("service", "diabetes")
    else:
        viewer = User.objects.get()
        viewer.is_active = False
        viewer.save()


if __name__ == "__main__":
    django.setup()
    print(prepare(), flush=True)
    for command in sys.stdin:
        obey(command.strip())

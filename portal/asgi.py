"""The ASGI application: pages over HTTP, live parts over websockets."""

import os

import django
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
django.setup(set_prefix=False)

from portal import consumers, log_consumers
from portal.bodies import BodyHandler

application = ProtocolTypeRouter(
    {
        "http": BodyHandler(),
        "websocket": AllowedHostsOriginValidator(
            AuthMiddlewareStack(
                URLRouter([*consumers.websocket_urlpatterns, *log_consumers.websocket_urlpatterns])
            )
        ),
    }
)

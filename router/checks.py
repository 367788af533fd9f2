"""System check of the data plane's program."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from deployments.errors import PermanentError
from router.haproxy.process import find_binary


@register("slipway")
def haproxy_is_there(**kwargs: Any) -> list[CheckMessage]:
    """slipway.E001: HAProxy 2.8 or newer is found."""
    try:
        find_binary(settings.ENV.haproxy_bin)
    except PermanentError as error:
        what, _, hint = error.message.partition(". ")
        return [Error(what, hint=hint or None, id="slipway.E001")]
    return []

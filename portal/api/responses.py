"""The one shape of the API's answers, and the one way in.

A view is an `endpoint`: it names the role it needs, and returns plain values. Errors are always
`{"error": {"code", "message"}}`, with the field's name beside them where a field is wrong. A client
that is not signed in gets 401 and no redirect to a sign-in page.
"""

import json
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.views.decorators.csrf import csrf_exempt

from deployments.errors import Conflict, InvalidInput, NotFound, SlipwayError, TemporaryError
from portal.access import allows
from portal.models import Role


def error(status: int, code: str, message: str, **more: Any) -> JsonResponse:
    """An error's answer. `more` goes beside the code and the message."""
    return JsonResponse({"error": {"code": code, "message": message, **more}}, status=status)


def from_exception(failure: SlipwayError) -> JsonResponse:
    """The answer for an error of the tree in `deployments.errors`."""
    if isinstance(failure, InvalidInput):
        field = {"field": failure.field} if failure.field else {}
        return error(400, failure.code or "InvalidInput", failure.message, **field)
    if isinstance(failure, NotFound):
        return error(404, failure.code or "NotFound", failure.message)
    if isinstance(failure, Conflict):
        return error(409, failure.code or "Conflict", failure.message)
    if isinstance(failure, TemporaryError):
        answer = error(503, failure.code or "Unavailable", failure.message)
        answer["Retry-After"] = str(max(1, round(failure.delay)))
        return answer
    return error(400, failure.code or "BadRequest", failure.message)


class _Csrf(CsrfViewMiddleware):
    """Django's own check of a browser's session, answered in the API's shape."""

    def _reject(self, request: HttpRequest, reason: str) -> HttpResponse:
        return error(
            403, "CsrfFailed", f"{reason} Send the value of the CSRF cookie as X-CSRFToken."
        )


def _csrf_problem(request: HttpRequest, view: Callable[..., Any]) -> HttpResponse | None:
    check = _Csrf(lambda _: HttpResponse())
    check.process_request(request)
    return check.process_view(request, view, (), {})


def endpoint(needed: Role, *methods: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator of an API view, which returns a dict (200), `(status, dict)` or a response.

    `methods` are the HTTP methods it takes, GET when none are named.
    """
    taken = methods or ("GET",)

    def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
        @csrf_exempt  # both are answered here, in the API's shape
        @login_not_required
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if not request.user.is_authenticated:
                return error(401, "Unauthorized", "Sign in to the portal first.")
            if not allows(request.user, needed):
                return error(
                    403,
                    "Forbidden",
                    f"This needs the role {needed.label.lower()}; ask an administrator for it.",
                )
            if forged := _csrf_problem(request, view):
                return forged
            if request.method not in taken and not (request.method == "HEAD" and "GET" in taken):
                answer = error(405, "MethodNotAllowed", f"Use {' or '.join(taken)} here.")
                answer["Allow"] = ", ".join(taken)
                return answer
            try:
                result = view(request, *args, **kwargs)
            except SlipwayError as failure:
                return from_exception(failure)
            except Http404 as failure:
                return error(404, "NotFound", str(failure) or "There is nothing here.")
            if isinstance(result, HttpResponse):
                return result
            status, body = result if isinstance(result, tuple) else (200, result)
            return JsonResponse(body, status=status)

        return guarded

    return decorate


def json_of(request: HttpRequest) -> Any:
    """The body; an empty object for one that is empty or is said to be something else."""
    if "json" not in (request.content_type or ""):
        return {}
    try:
        return json.loads(request.body or b"{}")
    except ValueError as error:
        raise InvalidInput("The body is not JSON.") from error


def object_of(request: HttpRequest) -> dict[str, Any]:
    """The body, which is a JSON object or empty."""
    found = json_of(request)
    if found is not None and not isinstance(found, dict):
        raise InvalidInput("The body is a JSON object, or empty.")
    return found or {}


@csrf_exempt
@login_not_required
def not_found(request: HttpRequest, path: str = "") -> HttpResponse:
    """Every address of the API that leads nowhere."""
    return error(404, "NotFound", f"The API has nothing at {request.path}.")

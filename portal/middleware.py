"""Static files, response headers for every page, and pages for errors that no view caught."""

import io
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from whitenoise.middleware import WhiteNoiseMiddleware

from deployments.errors import Conflict, NotFound, PermanentError, SlipwayError, TemporaryError
from portal.downloads import in_thread, read_chunks

logger = logging.getLogger(__name__)

# Plotly needs style rules of its own: it finds the empty stylesheet `css/plotly-host.css` by its id and
# adds them through the CSSOM, which a strict policy allows. So no 'unsafe-inline' anywhere.
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "font-src 'self'",
        "connect-src 'self'",  # 'self' covers ws: and wss: of the same host
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
PERMISSIONS = "camera=(), geolocation=(), microphone=(), payment=(), usb=(), browsing-topics=()"


class StaticFilesMiddleware(WhiteNoiseMiddleware):  # type: ignore[misc]  # whitenoise has no types
    """Whitenoise, with files streamed the way an ASGI server takes them.

    It hands over a plain file, which Django would read whole, with a warning, on each request.
    """

    @staticmethod
    def serve(static_file: Any, request: HttpRequest) -> Any:
        response = WhiteNoiseMiddleware.serve(static_file, request)
        if isinstance(request, ASGIRequest):
            source = response.file_to_stream or io.BytesIO()  # none: a 304, or the answer to HEAD
            response.streaming_content = in_thread(read_chunks(source))
        return response


class ContentSecurityPolicyMiddleware:
    """Only our own scripts, styles, images and websockets; nothing from anywhere else."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        response.headers.setdefault("Content-Security-Policy", POLICY)
        response.headers.setdefault("Permissions-Policy", PERMISSIONS)
        return response


class ProblemMiddleware:
    """An error of the house's tree that no view caught becomes a page that says what to do.

    htmx and scripts get its sentence as plain text, which app.js shows as a toast.
    """

    STATUS = ((NotFound, 404, "Not found"), (Conflict, 409, "Something is in the way"),
              (PermanentError, 400, "This cannot be done"),
              (TemporaryError, 503, "Not reachable just now"))  # fmt: skip

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not isinstance(error, SlipwayError):
            return None
        status, title = next(
            ((status, title) for kind, status, title in self.STATUS if isinstance(error, kind)),
            (500, "Something broke"),
        )
        logger.warning("%s %s: %s", request.method, request.path, error.message)
        if request.headers.get("HX-Request"):
            response = HttpResponse(error.message, status=status, content_type="text/plain")
        else:
            # Only the path of the page before: a link to another site must not be planted here.
            before = urlsplit(request.headers.get("Referer", "")).path or "/"
            back = request.path if request.method == "GET" and status == 503 else before
            context = {"status": status, "title": title, "code": error.code, "back": back,
                       "message": error.message, "again": status == 503}  # fmt: skip
            response = render(request, "problem.html", context, status=status)
        if isinstance(error, TemporaryError):
            response.headers["Retry-After"] = str(max(1, round(error.delay)))
        return response

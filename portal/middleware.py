"""Response headers for every page, and what a signed-out person gets."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

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


class ContentSecurityPolicyMiddleware:
    """Only our own scripts, styles, images and websockets; nothing from anywhere else."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        response.headers.setdefault("Content-Security-Policy", POLICY)
        response.headers.setdefault("Permissions-Policy", PERMISSIONS)
        return response

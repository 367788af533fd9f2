"""Who may do what, decided in one place for pages, the API and websockets.

A page, an API view or a consumer names the role it needs; each role includes the one before it.
"""

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from inspect import iscoroutinefunction
from typing import Any, TypeVar, cast

from django.conf import settings
from django.contrib.auth import get_user
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase

from portal.models import Role, User

_RANK = {Role.VIEWER: 0, Role.DEPLOYER: 1, Role.ADMINISTRATOR: 2}
View = TypeVar("View", bound=Callable[..., Any])


def allows(user: object, needed: Role) -> bool:
    """Whether this person has at least the role. Anonymous and inactive people have none."""
    if not isinstance(user, User) or not user.is_active:
        return False
    return _RANK[Role(user.role)] >= _RANK[needed]


def session_allows(session_key: str | None, needed: Role) -> bool:
    """Whether the session still stands and its person has the role, read anew from the database.

    For websockets, which outlive the request that opened them: a person may sign out, change the
    password, lose a role or be deactivated meanwhile. Blocking; consumers call it in a thread.
    """
    return allows(session_person(session_key), needed)


def session_person(session_key: str | None) -> object:
    """Whose session it is now; an anonymous user, or None, where it stands no more."""
    if not session_key:
        return None
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    return get_user(request)


def person(request: HttpRequest) -> User:
    """Who asks, inside a view that `requires` guards."""
    return cast(User, request.user)


def requires(needed: Role) -> Callable[[View], View]:
    """Decorator of a view, also of an async one: 403 with a reason unless the role allows it.

    Signing in is asked for by LoginRequiredMiddleware before any view runs.
    """

    def refuse_unless(user: object) -> None:
        if not allows(user, needed):
            raise PermissionDenied(
                f"This needs the role {needed.label.lower()}. Ask an administrator for it."
            )

    def decorate(view: View) -> View:
        if iscoroutinefunction(view):

            @wraps(view)
            async def guarded_async(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                refuse_unless(await request.auser())
                return await view(request, *args, **kwargs)

            return cast(View, guarded_async)

        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            refuse_unless(request.user)
            return view(request, *args, **kwargs)

        return cast(View, guarded)

    return decorate

"""Signing in and out, one's own password, and the people of the portal."""

from typing import Any, cast

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.views import LoginView, LogoutView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_safe

from deployments.errors import InvalidInput
from portal import live, people
from portal.access import requires
from portal.forms.people import (
    DetailsForm,
    NewPersonForm,
    OwnPasswordForm,
    PasswordForm,
    SignInForm,
)
from portal.models import Role, User


class SignIn(LoginView):
    """The sign-in page. Signed-in people are sent on."""

    template_name = "people/login.html"
    authentication_form = SignInForm
    redirect_authenticated_user = True

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        hint = settings.HOME.admin_password.exists()
        return super().get_context_data(first_password_hint=hint, **kwargs)


class SignOut(LogoutView):
    """By POST only. The person's open pages hear of it."""

    http_method_names = ["post", "options"]

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        pk = request.user.pk
        response = super().post(request, *args, **kwargs)
        if pk is not None:
            live.signed_out(pk)
        return response


@sensitive_post_parameters()
@require_http_methods(["GET", "POST"])
@requires(Role.VIEWER)
def password(request: HttpRequest) -> HttpResponse:
    person = cast(User, request.user)
    form = OwnPasswordForm(request.POST or None, person=person)
    if request.method == "POST" and form.is_valid():
        people.set_password(person, person, form.cleaned_data["password"])
        update_session_auth_hash(request, person)
        messages.success(request, "Your password is changed. Your other sessions have ended.")
        return redirect("overview")
    return render(request, "people/password.html", {"form": form})


@require_safe
@requires(Role.ADMINISTRATOR)
def people_list(request: HttpRequest) -> HttpResponse:
    everybody = User.objects.order_by("-is_active", "username")
    return render(request, "people/list.html", {"people": everybody})


@sensitive_post_parameters()
@require_http_methods(["GET", "POST"])
@requires(Role.ADMINISTRATOR)
def person_add(request: HttpRequest) -> HttpResponse:
    form = NewPersonForm(request.POST or None, initial={"role": Role.VIEWER, "is_active": True})
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            people.add_person(
                cast(User, request.user), values["username"], values["password"], form.details()
            )
        except InvalidInput as error:
            form.add_error(error.field or None, error.message)
        else:
            messages.success(request, f"{values['username']} may sign in now.")
            return redirect("people-list")
    return render(request, "people/add.html", {"form": form})


@sensitive_post_parameters()
@require_http_methods(["GET", "POST"])
@requires(Role.ADMINISTRATOR)
def person_edit(request: HttpRequest, pk: int) -> HttpResponse:
    """Two forms on one page: details, and a new password (the button's name says which)."""
    person = get_object_or_404(User, pk=pk)
    actor = cast(User, request.user)
    sets_password = request.method == "POST" and "set-password" in request.POST
    changes = request.method == "POST" and not sets_password
    form = DetailsForm(
        request.POST if changes else None,
        initial={
            "first_name": person.first_name,
            "last_name": person.last_name,
            "email": person.email,
            "role": person.role,
            "is_active": person.is_active,
        },
    )
    password_form = PasswordForm(request.POST if sets_password else None, person=person)
    if sets_password and password_form.is_valid():
        people.set_password(actor, person, password_form.cleaned_data["password"])
        if person.pk == actor.pk:
            update_session_auth_hash(request, person)
        messages.success(
            request, f"{person.username} has a new password; their sessions have ended."
        )
        return redirect("person-edit", person.pk)
    if changes and form.is_valid():
        try:
            people.change_person(actor, person.pk, form.details())
        except InvalidInput as error:
            form.add_error(error.field or None, error.message)
        else:
            messages.success(request, f"{person.username} is changed.")
            return redirect("people-list")
    context = {"person": person, "form": form, "password_form": password_form}
    return render(request, "people/edit.html", context)

"""Forms of signing in and of the people's pages."""

from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.password_validation import (
    password_validators_help_text_html,
    validate_password,
)
from django.core.exceptions import ValidationError

from portal import sign_in_limit
from portal.models import Role, User
from portal.people import Details

ROLE_HELP = (
    "A viewer sees everything but keys. A deployer also registers models, builds environments and deploys. "
    "An administrator also attaches clusters and manages people."
)


class SignInForm(AuthenticationForm):
    """Django's form, with a limit on tries."""

    error_messages = {
        "invalid_login": "The username or the password is not right. Both are case-sensitive.",
        "inactive": "This account is deactivated. Ask an administrator.",
        "throttled": "Too many tries. Wait five minutes and try again.",
    }

    def clean(self) -> dict[str, Any]:
        username = self.cleaned_data.get("username") or ""
        address = self.request.META.get("REMOTE_ADDR", "") if self.request else ""
        if not sign_in_limit.may_try(username, address):
            raise ValidationError(self.error_messages["throttled"], code="throttled")
        cleaned = super().clean()
        sign_in_limit.forget(username, address)
        return cleaned


class DetailsForm(forms.Form):
    """A person's details, role and whether they may sign in."""

    first_name = forms.CharField(max_length=150, required=False)
    last_name = forms.CharField(max_length=150, required=False)
    email = forms.EmailField(max_length=254, required=False)
    role = forms.ChoiceField(choices=Role.choices, widget=forms.RadioSelect, help_text=ROLE_HELP)
    is_active = forms.BooleanField(
        label="May sign in",
        required=False,
        help_text="Without it the account stays, its sessions end at once.",
    )

    def details(self) -> Details:
        values = self.cleaned_data
        return Details(
            role=values["role"],
            first_name=values["first_name"],
            last_name=values["last_name"],
            email=values["email"],
            is_active=values["is_active"],
        )


class PasswordForm(forms.Form):
    """A new password for somebody."""

    password = forms.CharField(
        label="New password",
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text=password_validators_help_text_html,
    )

    def __init__(self, *args: Any, person: User | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.person = person

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        validate_password(password, self.person)
        return password


class OwnPasswordForm(PasswordForm):
    """One's own: the old one is asked for, so that an open screen is not enough."""

    old_password = forms.CharField(
        label="Present password",
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password", "autofocus": True}),
    )
    again = forms.CharField(
        label="New password again",
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )
    field_order = ["old_password", "password", "again"]

    def clean_old_password(self) -> str:
        old: str = self.cleaned_data["old_password"]
        if self.person is None or not self.person.check_password(old):
            raise ValidationError("This is not your present password.")
        return old

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if "password" in cleaned and cleaned.get("again") != cleaned["password"]:
            self.add_error("again", "The two new passwords differ.")
        return cleaned


class NewPersonForm(DetailsForm, PasswordForm):
    """Everything a new person needs."""

    username = forms.CharField(
        max_length=150,
        validators=[User.username_validator],
        widget=forms.TextInput(attrs={"autofocus": True, "autocomplete": "off"}),
        help_text="What they sign in with. Letters, digits and any of @.+-_",
    )
    is_active = forms.BooleanField(label="May sign in", required=False, initial=True)
    field_order = ["username", "password", "first_name", "last_name", "email", "role", "is_active"]

"""People in the admin panel: to find and see. They are changed on the portal's page, which audits."""

from typing import Any

import django.contrib.auth.admin  # noqa: F401  registers groups, which are taken out below
from django.contrib import admin
from django.contrib.auth.models import Group
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from portal.models import User

# Roles are the only rights; groups would look as if they meant something.
admin.site.unregister(Group)


@admin.register(User)
class UserAdmin(admin.ModelAdmin):
    list_display = [
        "username",
        "role",
        "is_active",
        "email",
        "last_login",
        "date_joined",
        "change_it",
    ]
    list_filter = ["role", "is_active"]
    search_fields = ["username", "first_name", "last_name", "email"]
    fields = ["username", "first_name", "last_name", "email", "role", "is_active",
              "last_login", "date_joined", "change_it"]  # fmt: skip
    readonly_fields = ["change_it"]

    @admin.display(description="change")
    def change_it(self, person: User) -> SafeString:
        return format_html(
            '<a href="{}">On the people page</a>', reverse("person-edit", args=[person.pk])
        )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

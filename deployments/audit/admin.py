"""The audit trail in the admin panel: to be searched and filtered, never to be changed."""

from django.contrib import admin

from deployments.audit.models import AuditEntry
from deployments.registry.admin import ReadOnly


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ["at", "actor_name", "action", "object_type", "object_name"]
    list_filter = ["action", "object_type", "at"]
    search_fields = ["actor_name", "object_name", "action"]
    date_hierarchy = "at"
    list_select_related = ["actor"]

"""Admin of what was measured and decided: to look at, never to change."""

from django.contrib import admin
from django.http import HttpRequest

from router.telemetry.models import (
    Decision,
    Hour,
    Minute,
    RequestGap,
    RequestPlace,
    RequestRecord,
    RollupMark,
    Second,
    Series,
    TenSeconds,
    WhatIf,
)


class ReadOnlyAdmin(admin.ModelAdmin):
    """Measurements are not edited: a changed one would lie."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False


@admin.register(Series)
class SeriesAdmin(ReadOnlyAdmin):
    list_display = ["service", "version", "cluster"]
    list_filter = ["cluster"]
    search_fields = ["service"]


@admin.register(Second, TenSeconds, Minute, Hour)
class SampleAdmin(ReadOnlyAdmin):
    list_display = [
        "time", "series", "ready", "starting", "desired", "busy", "queued",
        "arrivals", "ok", "client_errors", "rejected", "unready", "timeouts", "failures",
    ]  # fmt: skip
    list_filter = ["series__cluster"]
    search_fields = ["series__service"]
    list_select_related = ["series"]
    ordering = ["-at"]
    exclude = ["histogram", "queue_histogram", "service_histogram"]
    show_full_result_count = False  # millions of rows


@admin.register(Decision)
class DecisionAdmin(ReadOnlyAdmin):
    list_display = ["time", "series", "before", "after", "code", "applied", "reason", "waited"]
    list_filter = ["code", "applied", "series__cluster"]
    search_fields = ["series__service", "reason"]
    list_select_related = ["series"]
    show_full_result_count = False


@admin.register(WhatIf)
class WhatIfAdmin(ReadOnlyAdmin):
    list_display = ["pk", "service", "version", "state", "asked_by", "time", "attempts"]
    list_filter = ["state", "cluster"]
    search_fields = ["service", "asked_by"]


@admin.register(RollupMark)
class RollupMarkAdmin(ReadOnlyAdmin):
    list_display = ["step", "until"]


@admin.register(RequestRecord)
class RequestRecordAdmin(ReadOnlyAdmin):
    list_display = ["time", "service", "version", "status", "total_ms", "who", "replica"]
    list_filter = ["cluster"]
    search_fields = ["=request_id", "=client_request_id", "=service"]
    ordering = ["-pk"]
    show_full_result_count = False


@admin.register(RequestGap)
class RequestGapAdmin(ReadOnlyAdmin):
    list_display = ["time", "cluster", "seconds", "lost", "why"]
    list_filter = ["cluster"]


@admin.register(RequestPlace)
class RequestPlaceAdmin(ReadOnlyAdmin):
    list_display = ["cluster", "epoch", "seq"]

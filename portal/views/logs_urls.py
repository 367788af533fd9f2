"""URLs of the logs. A service's name never begins with "_", so `_logs` cannot be one."""

from django.urls import path

from portal.views import logs

urlpatterns = [
    path("_logs/<str:source>/data", logs.data, name="log-data"),
    path("_logs/<str:source>/download", logs.download, name="log-download"),
    path("<slug:name>/logs/", logs.service_logs, name="service-logs"),
    path("<slug:name>/logs/runs/", logs.service_runs, name="service-logs-runs"),
    path("<slug:name>/logs/data", logs.service_data, name="service-logs-data"),
    path("<slug:name>/logs/download", logs.service_download, name="service-logs-download"),
]

"""URLs of the Metrics tab."""

from django.urls import path

from portal.views import metrics

urlpatterns = [
    path("<str:name>/metrics/", metrics.metrics, name="service-metrics"),
    path("<str:name>/metrics/data/", metrics.data, name="service-metrics-data"),
    path("<str:name>/metrics/data.csv", metrics.data_csv, name="service-metrics-csv"),
]

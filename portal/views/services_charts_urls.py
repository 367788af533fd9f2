"""URLs of the small charts of all services. Before those of one: a service's name never begins with "_"."""

from django.urls import path

from portal.views import services_charts

urlpatterns = [
    path("_charts/", services_charts.charts, name="service-charts"),
    path("_charts/data/", services_charts.charts_data, name="service-charts-data"),
    path("_charts/data.csv", services_charts.charts_csv, name="service-charts-csv"),
]

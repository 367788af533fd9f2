"""URLs of the Decisions tab."""

from django.urls import path

from portal.views import decisions

urlpatterns = [
    path("<str:name>/decisions/", decisions.decisions, name="service-decisions"),
    path("<str:name>/decisions/rows/", decisions.rows, name="service-decisions-rows"),
    path("<str:name>/decisions/latest/", decisions.latest, name="service-decisions-latest"),
    path("<str:name>/decisions/data.csv", decisions.data_csv, name="service-decisions-csv"),
]

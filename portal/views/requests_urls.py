"""URLs of the Requests tab."""

from django.urls import path

from portal.views import requests

urlpatterns = [
    path("<str:name>/requests/", requests.service_requests, name="service-requests"),
    path("<str:name>/requests/rows/", requests.rows, name="service-requests-rows"),
    path("<str:name>/requests/data.csv", requests.data_csv, name="service-requests-csv"),
]

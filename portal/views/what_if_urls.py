"""URLs of the What if tab."""

from django.urls import path

from portal.views import what_if

urlpatterns = [
    path("<str:name>/what-if/", what_if.what_if, name="service-what-if"),
    path("<str:name>/what-if/ask/", what_if.ask, name="service-what-if-ask"),
    path("<str:name>/what-if/<int:pk>/", what_if.shown, name="service-what-if-run"),
    path("<str:name>/what-if/<int:pk>/state/", what_if.state, name="service-what-if-state"),
    path("<str:name>/what-if/<int:pk>/data/", what_if.data, name="service-what-if-data"),
    path("<str:name>/what-if/<int:pk>/data.csv", what_if.data_csv, name="service-what-if-csv"),
    path("<str:name>/what-if/<int:pk>/cancel/", what_if.cancel, name="service-what-if-cancel"),
    path("<str:name>/what-if/<int:pk>/apply/", what_if.apply, name="service-what-if-apply"),
]

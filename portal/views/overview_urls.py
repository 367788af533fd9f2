"""URLs of the overview page."""

from django.urls import path

from portal.views import overview

urlpatterns = [path("", overview.overview, name="overview")]

"""URLs of the overview page."""

from django.conf import settings
from django.urls import path

from portal.views import overview, styleguide

urlpatterns = [
    path("", overview.overview, name="overview"),
    path("overview/services/", overview.services, name="overview-services"),
    path("overview/clusters/", overview.clusters, name="overview-clusters"),
    path("overview/deployments/", overview.deployments, name="overview-deployments"),
]
if settings.DEBUG:
    urlpatterns.append(path("styleguide/", styleguide.styleguide, name="styleguide"))

"""All pages. One module a noun; a fragment has a URL of its own under its page's."""

from django.contrib import admin
from django.urls import include, path

from portal.views.health import healthz

urlpatterns = [
    path("healthz", healthz, name="healthz"),
    path("", include("portal.views.overview_urls")),
    path("", include("portal.views.people_urls")),
    path("models/", include("portal.views.models_urls")),
    path("environments/", include("portal.views.environments_urls")),
    path("environments/", include("portal.views.images_urls")),
    path("clusters/", include("portal.views.clusters_urls")),
    path("registries/", include("portal.views.registries_urls")),
    path("services/", include("portal.views.services_charts_urls")),
    path("services/", include("portal.views.services_urls")),
    path("services/", include("portal.views.metrics_urls")),
    path("services/", include("portal.views.decisions_urls")),
    path("services/", include("portal.views.what_if_urls")),
    path("services/", include("portal.views.logs_urls")),
    path("services/", include("portal.views.requests_urls")),
    path("api/", include("portal.api.urls")),
    path("admin/", admin.site.urls),
]

"""URLs of the clusters pages. A cluster's name never begins with "_"."""

from django.urls import path

from portal.views import (
    clusters,
    clusters_attaching,
    clusters_detaching,
    clusters_kubernetes,
    clusters_router,
    clusters_signing,
    clusters_size,
    packages,
)

urlpatterns = [
    path("", clusters.cluster_list, name="cluster-list"),
    path("_attach/", clusters.attach, name="cluster-attach"),
    path("_role/", clusters_attaching.role, name="cluster-role"),
    path("_attaching/<int:pk>/", clusters_attaching.page, name="cluster-attaching"),
    path("_attaching/<int:pk>/live/", clusters_attaching.live, name="cluster-attaching-live"),
    path("_detaching/<int:pk>/", clusters_detaching.page, name="cluster-detaching"),
    path("_detaching/<int:pk>/live/", clusters_detaching.live, name="cluster-detaching-live"),
    path("<slug:name>/", clusters.detail, name="cluster-detail"),
    path("<slug:name>/live/", clusters.live, name="cluster-live"),
    path("<slug:name>/check/", clusters.check, name="cluster-check"),
    path("<slug:name>/connection/", clusters_kubernetes.connection, name="cluster-connection"),
    path("<slug:name>/tls/", clusters_router.tls_page, name="cluster-tls"),
    path("<slug:name>/tls/plain/", clusters_router.plain_http, name="cluster-tls-plain"),
    path("<slug:name>/tls/remove/", clusters_router.tls_remove, name="cluster-tls-remove"),
    path("<slug:name>/router-setup/", clusters_router.setup_part, name="cluster-setup"),
    path("<slug:name>/router/", clusters_size.router_page, name="cluster-router"),
    path("<slug:name>/router/now/", clusters_size.router_now, name="cluster-router-now"),
    path("<slug:name>/router/data/", clusters_size.router_data, name="cluster-router-data"),
    path("<slug:name>/router/data.csv", clusters_size.router_csv, name="cluster-router-csv"),
    path(
        "<slug:name>/router/decisions/",
        clusters_size.router_decisions,
        name="cluster-router-decisions",
    ),
    path("<slug:name>/router/cores/", clusters_size.router_cores, name="cluster-router-cores"),
    path("<slug:name>/haproxy/", clusters_router.lines_page, name="cluster-lines"),
    path("<slug:name>/signing/", clusters_signing.card, name="cluster-signing"),
    path("<slug:name>/signing/rotate/", clusters_signing.rotate, name="cluster-signing-rotate"),
    path("<slug:name>/refuse/", packages.refuse, name="cluster-refuse"),
    path("<slug:name>/detach/", clusters.detach, name="cluster-detach"),
]

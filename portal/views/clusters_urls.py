"""URLs of the clusters pages. A cluster's name never begins with "_"."""

from django.urls import path

from portal.views import clusters, clusters_router, clusters_signing

urlpatterns = [
    path("", clusters.cluster_list, name="cluster-list"),
    path("_attach/", clusters.attach, name="cluster-attach"),
    path("<slug:name>/", clusters.detail, name="cluster-detail"),
    path("<slug:name>/live/", clusters.live, name="cluster-live"),
    path("<slug:name>/check/", clusters.check, name="cluster-check"),
    path("<slug:name>/tls/", clusters_router.tls_page, name="cluster-tls"),
    path("<slug:name>/tls/plain/", clusters_router.plain_http, name="cluster-tls-plain"),
    path("<slug:name>/tls/remove/", clusters_router.tls_remove, name="cluster-tls-remove"),
    path("<slug:name>/router-setup/", clusters_router.setup_part, name="cluster-setup"),
    path("<slug:name>/haproxy/", clusters_router.lines_page, name="cluster-lines"),
    path("<slug:name>/signing/", clusters_signing.card, name="cluster-signing"),
    path("<slug:name>/signing/rotate/", clusters_signing.rotate, name="cluster-signing-rotate"),
    path("<slug:name>/detach/", clusters.detach, name="cluster-detach"),
]

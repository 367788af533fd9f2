"""URLs of the clusters pages. A cluster's name never begins with "_"."""

from django.urls import path

from portal.views import clusters, clusters_signing

urlpatterns = [
    path("", clusters.cluster_list, name="cluster-list"),
    path("_attach/", clusters.attach, name="cluster-attach"),
    path("<slug:name>/", clusters.detail, name="cluster-detail"),
    path("<slug:name>/live/", clusters.live, name="cluster-live"),
    path("<slug:name>/check/", clusters.check, name="cluster-check"),
    path("<slug:name>/signing/", clusters_signing.card, name="cluster-signing"),
    path("<slug:name>/signing/rotate/", clusters_signing.rotate, name="cluster-signing-rotate"),
    path("<slug:name>/detach/", clusters.detach, name="cluster-detach"),
]

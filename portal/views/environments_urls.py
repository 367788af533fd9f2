"""URLs of the environments pages. A name never begins with "_", so `_create` cannot be one."""

from django.urls import path

from portal.views import environments, packages

urlpatterns = [
    path("", environments.environment_list, name="environment-list"),
    path("_rows/", environments.environment_rows, name="environment-rows"),
    path("_create/", environments.environment_create, name="environment-create"),
    path("_preview/", environments.environment_preview, name="environment-preview"),
    path("<str:name>/<int:version>/", environments.environment_detail, name="environment-detail"),
    path(
        "<str:name>/<int:version>/build/", environments.environment_build, name="environment-build"
    ),
    path(
        "<str:name>/<int:version>/build/start/",
        environments.build_start,
        name="environment-build-start",
    ),
    path(
        "<str:name>/<int:version>/build/remove/",
        environments.build_remove,
        name="environment-build-remove",
    ),
    path("<str:name>/<int:version>/packages/", packages.page, name="environment-packages"),
    path(
        "<str:name>/<int:version>/packages/card/", packages.card, name="environment-packages-card"
    ),
    path(
        "<str:name>/<int:version>/packages/<slug:of>.cdx.json",
        packages.sbom,
        name="environment-sbom",
    ),
    path(
        "<str:name>/<int:version>/packages/<slug:of>/scan/",
        packages.rescan,
        name="environment-rescan",
    ),
    path(
        "<str:name>/<int:version>/delete/",
        environments.environment_delete,
        name="environment-delete",
    ),
]

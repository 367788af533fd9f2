"""URLs of the models pages. A model's name never begins with "_", so `_register` cannot be one."""

from django.urls import path

from portal.views import models as views

urlpatterns = [
    path("", views.model_list, name="model-list"),
    path("_rows/", views.model_rows, name="model-rows"),
    path("_register/", views.register, name="model-register"),
    path("_register/check/", views.register_check, name="model-register-check"),
    path("<str:name>/", views.detail, name="model-detail"),
    path("<str:name>/versions/", views.versions, name="model-versions"),
    path("<str:name>/delete/", views.delete_all, name="model-delete"),
    path("<str:name>/versions/<int:version>/", views.version_detail, name="model-version"),
    path("<str:name>/versions/<int:version>/used/", views.version_used, name="model-version-used"),
    path(
        "<str:name>/versions/<int:version>/delete/",
        views.version_delete,
        name="model-version-delete",
    ),
    path(
        "<str:name>/versions/<int:version>/download/",
        views.version_download,
        name="model-version-download",
    ),
    path(
        "<str:name>/versions/<int:version>/files/<path:path>",
        views.file_download,
        name="model-file-download",
    ),
]

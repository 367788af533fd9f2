"""URLs of the registries' pages."""

from django.urls import path

from portal.views import registries

urlpatterns = [
    path("", registries.registry_list, name="registry-list"),
    path("add/", registries.registry_add, name="registry-add"),
    path("<int:pk>/", registries.registry_edit, name="registry-edit"),
    path("<int:pk>/test/", registries.registry_test, name="registry-test"),
    path("<int:pk>/remove/", registries.registry_remove, name="registry-remove"),
]

"""URLs of the image part of environments' pages, under `environments/`."""

from django.urls import path

from portal.views import images

_AT = "<str:name>/<int:version>/image/"

urlpatterns = [
    path(_AT, images.image_card, name="environment-image"),
    path(f"{_AT}build/", images.image_build, name="environment-image-build"),
    path(f"{_AT}cancel/", images.image_cancel, name="environment-image-cancel"),
    path(f"{_AT}remove/", images.image_remove, name="environment-image-remove"),
]

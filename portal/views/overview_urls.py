"""URLs of the overview page."""

from django.conf import settings
from django.urls import path

from portal.views import overview, styleguide

urlpatterns = [path("", overview.overview, name="overview")]
if settings.DEBUG:
    urlpatterns.append(path("styleguide/", styleguide.styleguide, name="styleguide"))

"""URLs of the logs pages."""

urlpatterns: list = []

"""URLs of the clusters pages."""

urlpatterns: list = []

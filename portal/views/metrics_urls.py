"""URLs of the metrics pages."""

urlpatterns: list = []

"""URLs of the environments pages."""

urlpatterns: list = []

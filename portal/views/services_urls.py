"""URLs of the services pages."""

urlpatterns: list = []

"""URLs of the overview pages."""

urlpatterns: list = []

"""URLs of the models pages."""

urlpatterns: list = []

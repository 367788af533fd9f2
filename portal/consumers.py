"""Websocket consumers: they check who asks and forward; no business rules."""

websocket_urlpatterns: list = []

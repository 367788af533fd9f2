"""URLs of the JSON API."""

from django.urls import path

from portal.api import models, services
from portal.api.responses import not_found

urlpatterns = [
    path("v1/models", models.model_list, name="api-model-list"),
    path("v1/models/<str:name>/versions", models.version_list, name="api-model-versions"),
    path(
        "v1/models/<str:name>/versions/<int:version>",
        models.version_detail,
        name="api-model-version",
    ),
    path("v1/services", services.service_list, name="api-service-list"),
    path("v1/services/<slug:name>", services.service_detail, name="api-service"),
    path(
        "v1/services/<slug:name>/deployments",
        services.deployment_list,
        name="api-service-deployments",
    ),
    path("v1/deployments/<int:pk>", services.deployment_detail, name="api-deployment"),
    # last: whatever leads nowhere is answered in the API's shape
    path("<path:path>", not_found),
]

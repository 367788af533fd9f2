"""URLs of the JSON API."""

from django.urls import path

from portal.api import deploying, models, services, services_access, versions, what_if
from portal.api.responses import not_found

urlpatterns = [
    path("v1/models", models.model_list, name="api-model-list"),
    path("v1/models/<str:name>/versions", models.version_list, name="api-model-versions"),
    path(
        "v1/models/<str:name>/versions/<int:version>",
        models.version_detail,
        name="api-model-version",
    ),
    path("v1/services", deploying.services_view, name="api-service-list"),
    path("v1/services/<slug:name>", deploying.service_view, name="api-service"),
    path("v1/services/<slug:name>/versions", versions.version_list, name="api-versions"),
    path(
        "v1/services/<slug:name>/versions/<slug:version>",
        deploying.version_view,
        name="api-version",
    ),
    path(
        "v1/services/<slug:name>/versions/<slug:version>/promote",
        versions.promote,
        name="api-version-promote",
    ),
    path("v1/services/<slug:name>/undoPromotion", versions.undo, name="api-promotion-undo"),
    path("v1/services/<slug:name>/traffic", versions.traffic, name="api-traffic"),
    path("v1/services/<slug:name>/token", services_access.token, name="api-service-token"),
    path("v1/services/<slug:name>/tokens", services_access.token_list, name="api-service-tokens"),
    path(
        "v1/services/<slug:name>/tokens/revoke",
        services_access.revoke_all,
        name="api-service-tokens-revoke",
    ),
    path(
        "v1/services/<slug:name>/tokens/<slug:jti>/revoke",
        services_access.revoke,
        name="api-service-token-revoke",
    ),
    path("v1/services/<slug:name>/listkeys", services_access.list_keys, name="api-service-keys"),
    path(
        "v1/services/<slug:name>/regenerateKeys",
        services_access.regenerate_keys,
        name="api-service-regenerate-keys",
    ),
    path(
        "v1/services/<slug:name>/deployments",
        services.deployment_list,
        name="api-service-deployments",
    ),
    path("v1/services/<slug:name>/whatIfs", what_if.what_ifs, name="api-what-ifs"),
    path("v1/services/<slug:name>/whatIfs/<int:pk>", what_if.what_if, name="api-what-if"),
    path(
        "v1/services/<slug:name>/whatIfs/<int:pk>/cancel",
        what_if.cancel,
        name="api-what-if-cancel",
    ),
    path("v1/services/<slug:name>/whatIfs/<int:pk>/apply", what_if.apply, name="api-what-if-apply"),
    path("v1/deployments/<int:pk>", services.deployment_detail, name="api-deployment"),
    # last: whatever leads nowhere is answered in the API's shape
    path("<path:path>", not_found),
]

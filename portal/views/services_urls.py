"""URLs of the services pages. A service's name never begins with "_", so `_deploy` cannot be one."""

from django.urls import path

from portal.views import (
    local_runs,
    services,
    services_access,
    services_deploy,
    services_history,
    services_objects,
    services_overview,
    services_tokens,
    services_try,
    services_versions,
)

urlpatterns = [
    path("", services.service_list, name="service-list"),
    path("_rows/", services.service_rows, name="service-rows"),
    path("_deploy/", services_deploy.deploy_new, name="service-deploy"),
    path("_deploy/plan/", services_deploy.plan, name="service-deploy-plan"),
    path("_deploy/models/", services_deploy.model_choices, name="service-deploy-models"),
    path("_deploy/capacity/", services_deploy.capacity, name="service-deploy-capacity"),
    path("_deploy/fill/", services_deploy.fill, name="service-deploy-fill"),
    path("_deploy/objects/", services_objects.preview, name="service-deploy-objects"),
    path("_deploy/local/", services_deploy.run_locally, name="service-run-locally"),
    path("_local/", local_runs.run_list, name="service-local-runs"),
    path("_local/<int:pk>/", local_runs.run_page, name="service-local-run"),
    path("_local/<int:pk>/state/", local_runs.state, name="service-local-state"),
    path("_local/<int:pk>/file/", local_runs.file, name="service-local-file"),
    path("_local/<int:pk>/save/", local_runs.save, name="service-local-save"),
    path("_local/<int:pk>/send/", local_runs.send, name="service-local-send"),
    path("_local/<int:pk>/keep/", local_runs.keep, name="service-local-keep"),
    path("_local/<int:pk>/stop/", local_runs.stop, name="service-local-stop"),
    path("_local/<int:pk>/use/", local_runs.use, name="service-local-use"),
    path("<slug:name>/", services_overview.overview, name="service-overview"),
    path("<slug:name>/header/", services_overview.header, name="service-header"),
    path("<slug:name>/state/", services_overview.state, name="service-state"),
    path("<slug:name>/timeline/", services_overview.timeline, name="service-timeline"),
    path("<slug:name>/replicas/", services_overview.replicas, name="service-replicas"),
    path("<slug:name>/figures/", services_overview.figures, name="service-figures"),
    path("<slug:name>/versions/", services_versions.overview, name="service-versions"),
    path("<slug:name>/versions/table/", services_versions.table, name="service-versions-table"),
    path("<slug:name>/versions/traffic/", services_versions.traffic, name="service-traffic"),
    path("<slug:name>/versions/promote/", services_versions.promote, name="service-promote"),
    path("<slug:name>/versions/undo/", services_versions.undo, name="service-promote-undo"),
    path("<slug:name>/versions/control/", services_versions.control, name="service-control"),
    path("<slug:name>/versions/delete/", services_versions.delete, name="service-version-delete"),
    path("<slug:name>/test/", services_try.try_page, name="service-test"),
    path("<slug:name>/test/send/", services_try.send, name="service-test-send"),
    path("<slug:name>/consume/", services_access.consume, name="service-consume"),
    path("<slug:name>/consume/keys/", services_access.keys_hidden, name="service-keys"),
    path("<slug:name>/consume/keys/reveal/", services_access.reveal, name="service-keys-reveal"),
    path(
        "<slug:name>/consume/keys/regenerate/",
        services_access.regenerate,
        name="service-keys-regenerate",
    ),
    path("<slug:name>/consume/tokens/", services_tokens.token_list, name="service-tokens"),
    path("<slug:name>/consume/tokens/issue/", services_tokens.issue, name="service-tokens-issue"),
    path(
        "<slug:name>/consume/tokens/switch/", services_tokens.switch, name="service-tokens-switch"
    ),
    path(
        "<slug:name>/consume/tokens/revoke/", services_tokens.revoke, name="service-tokens-revoke"
    ),
    path(
        "<slug:name>/consume/tokens/revoke-all/",
        services_tokens.revoke_all,
        name="service-tokens-revoke-all",
    ),
    path("<slug:name>/settings/", services_deploy.settings, name="service-settings"),
    path("<slug:name>/objects.yaml", services_objects.objects, name="service-objects"),
    path("<slug:name>/settings/access/", services_access.update, name="service-access"),
    path("<slug:name>/settings/delete/", services_access.delete, name="service-delete"),
    path("<slug:name>/history/", services_history.history, name="service-history"),
    path("<slug:name>/history/roll-back/", services_history.roll_back, name="service-roll-back"),
]

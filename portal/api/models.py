"""The registry over the API: models and their versions, in Azure's names.

GET /api/v1/models                              the newest version of each; ?q= &framework= &tag= &page=
GET /api/v1/models/<name>/versions              all versions of one, newest first
GET /api/v1/models/<name>/versions/<version>    one version with its files
"""

from typing import Any

from django.core.paginator import Paginator
from django.http import HttpRequest
from django.urls import reverse

from deployments.errors import InvalidInput
from deployments.registry import queries
from deployments.registry.models import ModelVersion
from portal.api.responses import endpoint
from portal.forms.models import FilterForm
from portal.models import Role

_A_PAGE = 100


@endpoint(Role.VIEWER)
def model_list(request: HttpRequest) -> dict[str, Any]:
    form = FilterForm(request.GET)
    if not form.is_valid():
        field, problems = next(iter(form.errors.items()))
        raise InvalidInput(str(problems[0]), field=field)
    newest = queries.newest_versions(
        search=form.cleaned_data["q"],
        framework=form.cleaned_data["framework"],
        tag=form.cleaned_data["tag"],
    )
    page = Paginator(newest, _A_PAGE).get_page(request.GET.get("page"))
    value = [
        {
            **as_json(row.newest),
            "versions": row.versions,
            "deployedIn": [
                {"service": place.service, "version": place.version} for place in row.deployed
            ],
        }
        for row in queries.model_rows(list(page))
    ]
    answer: dict[str, Any] = {"value": value}
    if page.has_next():
        query = request.GET.copy()
        query["page"] = str(page.next_page_number())
        answer["nextLink"] = request.build_absolute_uri(f"{request.path}?{query.urlencode()}")
    return answer


@endpoint(Role.VIEWER)
def version_list(request: HttpRequest, name: str) -> dict[str, Any]:
    rows = queries.version_rows(queries.model_named(name))
    return {"value": [{**as_json(row.version), "deployedIn": list(row.services)} for row in rows]}


@endpoint(Role.VIEWER)
def version_detail(request: HttpRequest, name: str, version: int) -> dict[str, Any]:
    row = queries.version_of(name, version)
    return {
        **as_json(row),
        "sampleInput": row.sample_input,
        "files": [
            {
                "path": file.path,
                "sizeInBytes": file.blob.size,
                "sha256": file.blob_id,
                "url": request.build_absolute_uri(
                    reverse("model-file-download", args=[name, version, file.path])
                ),
            }
            for file in row.files.select_related("blob")
        ],
    }


def as_json(version: ModelVersion) -> dict[str, Any]:
    """A version in Azure's names; what Azure does not have is named in its manner."""
    return {
        "id": str(version),
        "name": version.model.name,
        "version": version.version,
        "description": version.description,
        "framework": version.framework,
        "frameworkVersion": version.framework_version,
        "kvTags": version.tags,
        "createdTime": version.created_at.isoformat(),
        "createdBy": version.created_by.username if version.created_by else None,
        "sizeInBytes": version.size,
        "fileCount": version.file_count,
        "contentHash": version.content_hash,
    }

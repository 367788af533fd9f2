"""A request that a service accepts: the sample that was registered with its model, and a curl of it.

Reads rows only. No key is ever in here: samples read it from SLIPWAY_KEY.
"""

import json
import shlex
from dataclasses import dataclass

from deployments.registry.models import ModelVersion
from deployments.services.models import Service
from portal.json_text import pretty as pretty_json

PIN_HEADER = "azureml-model-deployment"
# What no-code scikit-learn serving takes; a shape to fill in where no sample was registered.
EXAMPLE = '{"data": [[0.0, 0.0]]}'


def sample_body(service: Service, *, pretty: bool = False) -> str:
    """The sample input of what serves, or of what is being deployed; else an example of the shape."""
    text = ""
    revision = service.current or service.revisions.first()
    if revision is not None:
        text = (
            ModelVersion.objects.filter(revision_links__revision=revision)
            .exclude(sample_input="")
            .order_by("revision_links__position")
            .values_list("sample_input", flat=True)
            .first()
            or ""
        )
    text = text.strip() or EXAMPLE
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return pretty_json(value) if pretty else json.dumps(value)


def uri_of(service: Service) -> str:
    """Its scoring URI, with a name to fill in for an address that the cluster has not given yet."""
    return service.scoring_uri or f"http://ROUTER/api/v1/service/{service.name}/score"


def curl(service: Service, body: str, version: str = "") -> str:
    """A command that works once SLIPWAY_KEY holds a key of the service; `version` pins one."""
    lines = [f"curl {shlex.quote(uri_of(service))}"]
    if service.auth_enabled or service.token_auth_enabled:
        lines.append('  -H "Authorization: Bearer $SLIPWAY_KEY"')
    lines.append("  -H 'Content-Type: application/json'")
    if version:
        lines.append(f"  -H {shlex.quote(f'{PIN_HEADER}: {version}')}")
    lines.append(f"  -d {shlex.quote(body)}")
    return " \\\n".join(lines)


@dataclass(frozen=True, slots=True)
class Sample:
    """A piece of code that calls the service. `id` is fit for an element's id."""

    id: str
    label: str
    text: str


def samples(service: Service, body: str) -> list[Sample]:
    """curl, Python and JavaScript; the key comes out of SLIPWAY_KEY where one is asked for."""
    keyed = service.auth_enabled or service.token_auth_enabled
    uri = json.dumps(uri_of(service))
    return [
        Sample("curl", "curl", curl(service, body)),
        Sample("python", "Python", _python(uri, body, keyed)),
        Sample("javascript", "JavaScript", _javascript(uri, body, keyed)),
    ]


def _python(uri: str, body: str, keyed: bool) -> str:
    imports = "import os\n\nimport requests\n" if keyed else "import requests\n"
    headers = "{'Content-Type': 'application/json'"
    headers += ", 'Authorization': f\"Bearer {os.environ['SLIPWAY_KEY']}\"}" if keyed else "}"
    return (
        f"{imports}\nanswer = requests.post(\n    {uri},\n    data={body!r},\n"
        f"    headers={headers},\n    timeout=60,\n)\nanswer.raise_for_status()\n"
        "print(answer.json())\n"
    )


def _javascript(uri: str, body: str, keyed: bool) -> str:
    key = '\n    "Authorization": `Bearer ${process.env.SLIPWAY_KEY}`,' if keyed else ""
    return (
        f'const answer = await fetch({uri}, {{\n  method: "POST",\n  headers: {{\n'
        f'    "Content-Type": "application/json",{key}\n  }},\n  body: {json.dumps(body)},\n}});\n'
        "if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);\n"
        "console.log(await answer.json());\n"
    )

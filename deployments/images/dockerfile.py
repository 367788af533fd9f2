"""The Dockerfile of an environment, as it is sent to the Engine and shown in the portal.

PURE. Two stages: the base image with the docker steps, and on it the packages, copied from an image that a
builder container left (`deployments.images.builder_script` says what runs there). So whatever the install
needed (passwords of an index, proxies, certificates, caches) is in no layer, no history and no configuration
of the image. It runs as a user without rights, writes nothing but under /tmp, and holds no model and no
source: one image serves every model of the environment.
"""

import json
from collections.abc import Mapping, Sequence

from deployments.images import layers as cut
from deployments.images.layers import FOLDER, PREFIX, Layer
from deployments.images.plan import ImagePlan

LABEL = "slipway.environment"  # of the images: the hash
VERSION_LABEL = "slipway.version"
PORT = 5001
USER = "1000:1000"
STEPS_STAGE = "steps"
APPLICATION_FOLDER = "/var/azureml-app"

_ENVIRONMENT: Mapping[str, str] = {
    "PATH": f"{PREFIX}/bin:$PATH",
    "VIRTUAL_ENV": PREFIX,
    "LANG": "C.UTF-8",
    "HOME": "/tmp",  # noqa: S108 - the one folder that can be written to
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "AML_APP_ROOT": APPLICATION_FOLDER,
}


def dockerfile(
    plan: ImagePlan,
    *,
    builder: str,
    environment_hash: str,
    version: str,
    layers: Sequence[Layer] = (),
) -> str:
    """The text. `builder` is the reference of the image that the builder container left, `layers` how it
    cut the packages (`deployments.images.layers`); none where it left them whole."""
    # what differs from one environment to the next comes last: the layers before it are in the cache
    lines = [
        f"# Environment {environment_hash[:12]}, written by Slipway {version}.",
        "# Installed by a builder container on the first stage, and copied from there:",
        *(f"#   conda {text}" for text in plan.conda),
        *(f"#   {text}" for text in plan.requirements),
        "",
        steps_stage(plan).rstrip("\n"),
        "",
        f"FROM {STEPS_STAGE}",
        f"WORKDIR {APPLICATION_FOLDER}",
        "ENV " + " \\\n    ".join(f"{name}={value}" for name, value in _ENVIRONMENT.items()),
        f"EXPOSE {PORT}",
        f"USER {USER}",
        "ENTRYPOINT []",
        f'CMD ["azmlinfsrv", "--port", "{PORT}"]',
        *(f"COPY --from={builder} {FOLDER}/{layer.name} /" for layer in layers),
    ]
    if not layers:
        lines.append(f"COPY --from={builder} {PREFIX} {PREFIX}")
    lines.append(f"LABEL {LABEL}={environment_hash} {VERSION_LABEL}={json.dumps(version)}")
    if layers:
        lines.append(f"LABEL {cut.LABEL}={json.dumps(cut.text(layers))}")
    return "\n".join(lines) + "\n"


def steps_stage(plan: ImagePlan) -> str:
    """The first stage alone: what the builder container runs on."""
    return "\n".join([f"FROM {plan.base_image} AS {STEPS_STAGE}", *plan.steps]) + "\n"

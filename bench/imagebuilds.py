"""Times an image's build: cold, warm, found; and weighs it. `bench/images --help`.

Works in a home and a cache volume of its own, and removes what it made on the Engine. Cold begins with an
empty cache of downloads; the base image is on the Engine. Weighs against the base image with `pip install`
of the same requirements in one layer.
"""

import argparse
import io
import json
import os
import secrets
import sys
import tarfile
import tempfile
import time
from typing import Any

PACKAGES = ("scikit-learn==1.9.1", "azureml-inference-server-http==1.5.1")
MORE = "pandas"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="figures as one JSON object")
    parser.add_argument("--base", default="127.0.0.1:5000/base/python:3.11")
    parser.add_argument("--registry", default="127.0.0.1:5000")
    parser.add_argument("--network", default="", help="of builds, such as host")
    parser.add_argument("--ca", default="", help="PEM file builds trust besides")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-images-") as home:
        os.environ.update(
            DJANGO_SETTINGS_MODULE="portal.settings",
            SLIPWAY_HOME=home,
            SLIPWAY_LOG_LEVEL="ERROR",
            SLIPWAY_BASE_IMAGE=arguments.base,
            SLIPWAY_BUILD_NETWORK=arguments.network,
            SLIPWAY_BUILD_CA_BUNDLE=arguments.ca,
        )
        figures = measure(arguments)
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        print(f"{name:<28} {value}")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    import django

    django.setup()
    from django.conf import settings
    from django.core.management import call_command

    from deployments.engine import client, images
    from deployments.environments.changes import create_environment
    from deployments.images import attempt, registries
    from deployments.images.builds import ensure_image
    from deployments.images.engines import Place, default_engine

    call_command("migrate", verbosity=0)
    # nothing listens to news in here
    settings.CHANNEL_LAYERS["default"] = {"BACKEND": "channels.layers.InMemoryChannelLayer"}
    name = f"bench-{secrets.token_hex(4)}"
    attempt.CACHE_VOLUME = name
    place = Place(default_engine(), runs_there=True)
    engine = client.connect(default_engine(), deadline=1800)
    registries.add(
        None,
        name="bench",
        role="workspace",
        address=arguments.registry,
        repository=name,
        plain_http=arguments.registry.startswith(("127.", "localhost")),
        username="",
    )
    figures: dict[str, Any] = {"base": arguments.base, "packages": " ".join(PACKAGES)}
    hashes = []
    try:
        for step, wanted in (
            ("cold", PACKAGES),
            ("warm", (*PACKAGES, MORE)),
            ("found", PACKAGES),
        ):
            environment = create_environment(None, name=step, pip_requirements="\n".join(wanted))
            hashes.append(environment.hash)
            began = time.perf_counter()
            build = ensure_image(environment, place, log=progress)
            figures[f"{step}_seconds"] = round(time.perf_counter() - began, 2)
            if step == "cold":
                figures["image_mib"] = round((build.size or 0) / 2**20, 1)
        base = images.inspect(engine, arguments.base)
        figures["base_mib"] = round(base.size / 2**20, 1) if base else None
        figures["plain_mib"] = plain_size(engine, arguments, name)
    finally:
        for hash_ in set(hashes):
            for image in images.labelled(engine, f"slipway.environment={hash_}"):
                images.remove(engine, image.id, force=True)
        images.remove(engine, f"{name}:plain", force=True)
        engine.api.remove_volume(name, force=True)
        engine.close()
    return figures


def plain_size(engine: Any, arguments: argparse.Namespace, name: str) -> float:
    """MiB of the base image with a plain `pip install --no-cache-dir` of the same, as people write it."""
    text = f"FROM {arguments.base}\nRUN pip install --no-cache-dir {' '.join(PACKAGES)}\n".encode()
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    context.seek(0)
    image, _ = engine.images.build(
        fileobj=context,
        custom_context=True,
        tag=f"{name}:plain",
        network_mode=arguments.network or None,
        rm=True,
        forcerm=True,
    )
    return round(image.attrs["Size"] / 2**20, 1)


def progress(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main()

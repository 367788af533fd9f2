"""A company's own settings of image builds, read from the environment and its files."""

from importlib.metadata import version as installed_version
from pathlib import Path

from django.conf import settings

from deployments.environments.causes import FAILED_CODE
from deployments.errors import PermanentError
from deployments.images import builder_script


def build_settings() -> builder_script.BuildSettings:
    """The company's settings. Raises PermanentError where the CA bundle cannot be read."""
    env = settings.ENV
    ca_pem = ""
    if env.build_ca_bundle:
        try:
            ca_pem = Path(env.build_ca_bundle).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PermanentError(
                f"SLIPWAY_BUILD_CA_BUNDLE: {env.build_ca_bundle} cannot be read: {error}. Give the path of a "
                "PEM file that Slipway's worker may read.",
                code=FAILED_CODE,
            ) from error
    return builder_script.BuildSettings(
        installer=env.installer,
        uv_version=installed_version("uv"),
        index_url=env.build_index_url,
        extra_index_urls=env.build_extra_index_urls,
        http_proxy=env.build_http_proxy,
        https_proxy=env.build_https_proxy,
        no_proxy=env.build_no_proxy,
        ca_pem=ca_pem,
        micromamba_url=env.micromamba_url,
        conda_alias=env.conda_alias,
    )

"""The certificates by which pods know the portal, as a setting names them."""

from dataclasses import replace
from pathlib import Path

import pytest

from deployments.clusters import kubes
from deployments.errors import PermanentError
from tests.deployments.clusters.authority import issue


@pytest.fixture
def named(settings):
    def name(path: Path | str) -> None:
        settings.ENV = replace(settings.ENV, blob_ca=str(path))

    return name


def test_without_the_setting_there_are_none(named) -> None:
    named("")
    assert kubes.blob_ca() == ""


def test_what_the_file_holds_is_given_on(named, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text(issue("the company", authority=True).pem)
    named(path)
    assert kubes.blob_ca() == path.read_text()


@pytest.mark.parametrize("text", [None, "no certificate", "\u00e4", "x" * 65_537])
def test_what_is_none_is_refused_with_the_settings_name(named, tmp_path: Path, text) -> None:
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    named(path)
    with pytest.raises(PermanentError) as refused:
        kubes.blob_ca()
    assert "SLIPWAY_BLOB_CA" in refused.value.message
    assert str(path) in refused.value.message

"""Settings are typed, strict, and documented."""

from pathlib import Path

import pytest

from portal.env import CHECKOUT, BadSetting, load
from portal.settings_table import markdown


def test_without_variables_everything_has_its_default():
    env = load({})
    assert (env.port, env.router_port, env.home) == (8000, 8080, CHECKOUT / "var")


def test_the_settings_page_holds_every_setting_as_the_code_has_it():
    assert markdown() in (CHECKOUT / "docs" / "settings.md").read_text()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SLIPWAY_PORT", "0", "SLIPWAY_PORT is '0'; it takes 1 to 65535."),
        ("SLIPWAY_PORT", "65536", "SLIPWAY_PORT is '65536'; it takes 1 to 65535."),
        ("SLIPWAY_PORT", "http", "SLIPWAY_PORT is 'http'; it takes a number."),
        ("SLIPWAY_HTTPS", "yes", "SLIPWAY_HTTPS is 'yes'; it takes True or False."),
        ("SLIPWAY_INSTALLER", "conda", "it takes one of uv, pip."),
        ("SLIPWAY_STORAGE_OPTIONS", "[1]", "SLIPWAY_STORAGE_OPTIONS takes a JSON object."),
        ("SLIPWAY_STORAGE_OPTIONS", "{", "SLIPWAY_STORAGE_OPTIONS is not JSON"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_what_it_takes(name: str, value: str, said: str):
    with pytest.raises(BadSetting) as refused:
        load({name: value})
    assert said in str(refused.value)


@pytest.mark.parametrize("port", ["1", "65535"])
def test_the_ends_of_a_range_are_inside_it(port: str):
    assert load({"SLIPWAY_PORT": port}).port == int(port)


def test_a_secret_may_come_from_a_mounted_file(tmp_path: Path):
    file = tmp_path / "key"
    file.write_text("from-the-file\n")
    assert load({"SLIPWAY_SECRET_KEY_FILE": str(file)}).secret_key == "from-the-file"


def test_a_secret_given_twice_is_refused(tmp_path: Path):
    with pytest.raises(BadSetting, match="both set"):
        load({"DATABASE_URL": "a", "DATABASE_URL_FILE": str(tmp_path / "b")})


def test_a_secret_file_that_is_missing_is_named(tmp_path: Path):
    with pytest.raises(BadSetting, match="DATABASE_URL_FILE: .*missing cannot be read"):
        load({"DATABASE_URL_FILE": str(tmp_path / "missing")})


def test_hosts_are_separated_by_commas():
    assert load({"SLIPWAY_ALLOWED_HOSTS": "a.example, b.example,"}).allowed_hosts == (
        "a.example",
        "b.example",
    )

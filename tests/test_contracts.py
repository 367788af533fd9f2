"""What the files that hold the house together promise: import contracts, and the commands of the README."""

import ast
import configparser
import os
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGES = ("deployments", "router", "portal")


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def test_every_module_that_says_it_is_pure_is_held_to_it() -> None:
    contracts = configparser.ConfigParser()
    contracts.read(CHECKOUT / ".importlinter")
    held = set(contracts["importlinter:contract:pure"]["source_modules"].split())
    said = {
        ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__")
        for package in PACKAGES
        for path in (CHECKOUT / package).rglob("*.py")
        if "PURE" in _docstring(path)
    }
    assert said - held == set()


@pytest.mark.parametrize("command", ["scripts/start", "scripts/stop"])
def test_the_commands_of_the_readme_can_be_run(command: str) -> None:
    assert command in (CHECKOUT / "README.md").read_text(encoding="utf-8")
    assert os.access(CHECKOUT / command, os.X_OK)

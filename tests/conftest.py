"""People with roles; what takes long comes first, and waits long for what should come soon."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from portal.models import Role, User
from tests.browser import chromium

# A condition that comes early costs nothing; one that comes late on a busy machine is no failure.
expect.set_options(timeout=30_000)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with daemons and browsers first, else random: a long file that starts last runs alone."""
    slowest: dict[str, int] = {}
    for item in items:
        file = item.nodeid.partition("::")[0]
        daemons = 2 if item.get_closest_marker("daemons") else 0
        browser = 1 if item.get_closest_marker("browser") else 0
        slowest[file] = max(slowest.get(file, 0), daemons + browser)
    items.sort(key=lambda item: -slowest[item.nodeid.partition("::")[0]])


def _person(name: str, role: str) -> User:
    user = User(username=name, role=role, email=f"{name}@example.com")
    user.set_password("correct horse battery")
    user.save()
    return user


@pytest.fixture
def viewer(db: None) -> User:
    """Vera may look."""
    return _person("vera", Role.VIEWER)


@pytest.fixture
def deployer(db: None) -> User:
    """Dan may register models and deploy."""
    return _person("dan", Role.DEPLOYER)


@pytest.fixture
def administrator(db: None) -> User:
    """Ada may do everything."""
    return _person("ada", Role.ADMINISTRATOR)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real Chromium."""
    with chromium() as started:
        yield started

"""People with roles, and the daemons that tests may ask for."""

import pytest

from portal.models import Role, User


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

"""Who asks an API server: a pod's own account, whose token its kubelet writes anew before it runs out."""

from pathlib import Path

import pytest

from deployments.errors import Unavailable
from deployments.kube import api
from deployments.types import KubeSpec

INSIDE = KubeSpec("https://10.0.0.1:443", in_cluster=True)


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(api, "_ACCOUNT", tmp_path)
    return tmp_path


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(api.time, "monotonic", lambda: now[0])
    return now


def rotate(account: Path, token: str) -> None:
    """As a kubelet does: into a new folder, which a link then leads to."""
    made = account / f"..{token}"
    made.mkdir()
    (made / "token").write_text(token + "\n")
    fresh = account / "fresh"
    fresh.symlink_to(made / "token")
    fresh.rename(account / "token")


def test_a_token_that_was_rotated_is_taken_within_a_minute(
    account: Path, clock: list[float]
) -> None:
    rotate(account, "first")
    headers = api._credentials_of(INSIDE)
    assert headers() == {"Authorization": "Bearer first"}
    rotate(account, "second")
    clock[0] += api._TOKEN_FOR - 0.1
    assert headers() == {"Authorization": "Bearer first"}  # good for long enough still
    clock[0] += 0.2
    assert headers() == {"Authorization": "Bearer second"}


def test_a_token_that_is_away_is_an_api_server_that_is_away(
    account: Path, clock: list[float]
) -> None:
    headers = api._credentials_of(INSIDE)
    with pytest.raises(Unavailable, match="token cannot be read"):
        headers()
    rotate(account, "later")
    assert headers() == {"Authorization": "Bearer later"}


def test_a_pod_without_an_account_is_told_so(account: Path) -> None:
    with pytest.raises(Unavailable, match="no service account"):
        api.Kube(INSIDE)

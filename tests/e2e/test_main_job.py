"""The main job as a person does it: one command, then a browser, then curl.

Everything is real: `manage.py up` starts Redis, web, workers, controller, agent, router and HAProxy in a
home of their own; Chromium attaches the machine, registers a model, deploys it and watches it go live;
the endpoint is scored through the router; `manage.py down` stops all of it. What happened is printed
(`scripts/test -s tests/e2e/test_main_job.py`).
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import joblib
import psutil
import pytest
from playwright.sync_api import Page, expect, sync_playwright
from sklearn import __version__ as sklearn_version
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

from tests.ports import free_port

pytestmark = [pytest.mark.daemons, pytest.mark.browser, pytest.mark.timeout(600)]

CHECKOUT = Path(__file__).resolve().parents[2]
FLOWER = [5.1, 3.5, 1.4, 0.2]


@dataclass(frozen=True)
class Running:
    """A started Slipway: its folder, its two addresses and what was printed."""

    home: Path
    portal: str
    router: str
    printed: str
    environ: dict[str, str]

    @property
    def password(self) -> str:
        return (self.home / "admin_password").read_text().strip()


def _manage(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=CHECKOUT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


@pytest.fixture(scope="module")
def slipway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("home")
    portal, router = free_port(), free_port()
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST")},
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "SLIPWAY_HOME": str(home),
        "SLIPWAY_PORT": str(portal),
        "SLIPWAY_ROUTER_PORT": str(router),
        "SLIPWAY_SEED": "False",
    }
    done = _manage(environ, "up", "--detach")
    try:
        assert done.returncode == 0, done.stderr + done.stdout
        yield Running(
            home, f"http://127.0.0.1:{portal}", f"http://127.0.0.1:{router}", done.stdout, environ
        )
    finally:
        stopped = _manage(environ, "down")
    assert stopped.returncode == 0, stopped.stderr
    left = [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline"])
        if any(str(home) in argument for argument in process.info["cmdline"] or ())
    ]
    assert left == []


@pytest.fixture
def page(slipway: Running) -> Iterator[Page]:
    """A browser in which the first administrator has signed in."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        tab = browser.new_context(base_url=slipway.portal).new_page()
        tab.set_default_timeout(60_000)
        tab.goto("/login/")
        tab.fill("[name=username]", "admin")
        tab.fill("[name=password]", slipway.password)
        tab.press("[name=password]", "Enter")
        tab.wait_for_url("/")
        yield tab
        browser.close()


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}")


def _score(slipway: Running, service: str, key: str) -> httpx.Response:
    answer = httpx.post(
        f"{slipway.router}/api/v1/service/{service}/score",
        json={"data": [FLOWER]},
        headers={"Authorization": f"Bearer {key}"},
        timeout=30,
    )
    _say(f"POST /api/v1/service/{service}/score -> {answer.status_code} {answer.text[:200]}")
    return answer


def test_a_model_is_registered_deployed_watched_and_scored(
    slipway: Running, page: Page, tmp_path: Path
) -> None:
    assert (slipway.home / "admin_password").stat().st_mode & 0o777 == 0o600
    assert slipway.password in slipway.printed

    page.goto("/clusters/_attach/")
    page.fill("[name=name]", "local")
    page.get_by_role("button", name="Attach").click()
    page.wait_for_url("**/clusters/local/")
    _say("attached the cluster local")

    features, kinds = load_iris(return_X_y=True)
    model = RandomForestClassifier(n_estimators=10, random_state=0).fit(features, kinds)
    file = tmp_path / "iris.joblib"
    joblib.dump(model, file)
    page.goto("/models/_register/")
    page.fill("[name=name]", "iris")
    page.locator("input[name=files]").first.set_input_files(str(file))
    page.select_option("[name=framework]", "ScikitLearn")
    page.fill("[name=framework_version]", sklearn_version)
    page.fill("[name=sample_input]", json.dumps({"data": [FLOWER]}))
    page.get_by_role("button", name="Register").click()
    page.wait_for_url("**/models/iris/**")
    _say(f"registered iris:1, {file.stat().st_size} bytes")

    page.goto("/services/_deploy/?model=iris:1")
    page.fill("[name=name]", "iris")
    submitted = time.monotonic()
    page.get_by_role("button", name="Deploy").click()
    page.wait_for_url("**/services/iris/")
    _say("submitted the deployment")
    expect(page.get_by_text("Healthy").first).to_be_visible(timeout=240_000)
    _say(f"Healthy {time.monotonic() - submitted:.1f} s after the submit, environment built")

    page.goto("/services/iris/consume/")
    page.get_by_role("button", name="Reveal").click()
    key = page.locator("[data-key=primary]").first.inner_text().strip()

    answer = _score(slipway, "iris", key)
    assert answer.status_code == 200
    assert answer.headers["x-request-id"]

    refused = _score(slipway, "iris", "not-the-key")
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "Unauthorized"
    unknown = _score(slipway, "nobody", key)
    assert unknown.status_code == 404
    assert unknown.json()["error"]["code"] == "ServiceNotFound"

    page.goto("/services/iris/test/")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("200").first).to_be_visible()
    _say("the Test tab shows 200")

    page.goto("/services/iris/settings/")
    submitted = time.monotonic()
    page.get_by_role("button", name="Deploy").click()
    page.wait_for_url("**/services/iris/")
    expect(page.get_by_text("Succeeded", exact=True).first).to_be_visible(timeout=180_000)
    expect(page.get_by_text("revision 2").first).to_be_visible(timeout=180_000)
    _say(f"an update with a cached environment took {time.monotonic() - submitted:.1f} s")
    assert _score(slipway, "iris", key).status_code == 200


def test_a_second_start_says_that_it_already_runs(slipway: Running) -> None:
    again = _manage(slipway.environ, "up", "--detach")
    assert again.returncode == 0
    assert f"already runs at {slipway.portal}" in again.stdout

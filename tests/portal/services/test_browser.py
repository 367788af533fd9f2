"""The deployment form in a real browser, over a real server and back end, up to the Deployment row."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from deployments.environments.models import Environment
from deployments.registry.models import ModelVersion
from deployments.services import sources
from deployments.services.models import Deployment, Service, ServiceVersion
from portal.models import User
from tests.browser import session_of, tab
from tests.portal.services.conftest import add_revision
from tests.serving import serve

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

SCRIPT = "def init():\n    pass\n\n\ndef run(data):\n    return data\n"


@pytest.fixture
def page(browser: Browser, live_server: Any, deployer: User) -> Iterator[Page]:
    """A tab in which Dan is signed in."""
    with tab(browser, live_server.url, session_of(deployer)) as page:
        yield page


def test_a_script_is_written_sized_and_deployed(
    page: Page, cluster: Any, diabetes: ModelVersion
) -> None:
    page.goto("/services/_deploy/?model=diabetes:1")
    plan = page.locator("#plan")
    expect(plan).to_contain_text("A new service diabetes on local.")
    expect(plan).to_contain_text("It fits local.")

    page.fill("#id_gpu_cores", "1")
    expect(plan).to_contain_text("no node of this cluster")
    page.fill("#id_gpu_cores", "0")
    expect(plan).to_contain_text("It fits local.")

    editor = page.locator("#id_score_py")
    expect(editor).to_be_hidden()
    page.check("[name=serving][value=entry_script]")
    expect(editor).to_be_visible()
    editor.fill("")
    editor.press_sequentially("def init():")
    editor.press("Enter")
    editor.press_sequentially("pass")
    editor.press("Shift+Tab")
    assert editor.input_value() == "def init():\npass"
    editor.press("Home")
    editor.press("Tab")
    editor.press("End")
    editor.press("Enter")
    assert editor.input_value() == "def init():\n    pass\n    "
    assert page.locator(".editor-lines").inner_text().split() == ["1", "2", "3"]
    editor.fill(SCRIPT)

    page.check("[name=replicas_mode][value=fixed]")
    page.get_by_text("How many do I need?").click()
    page.fill("#id_requests_per_second", "20")
    page.fill("#id_seconds_per_request", "10")
    expect(page.locator("#capacity")).to_contain_text("286 replicas")
    page.get_by_role("button", name="Use it").click()
    assert page.input_value("#id_num_replicas") == "286"
    page.fill("#id_num_replicas", "2")

    page.get_by_role("button", name="Deploy").click()
    page.wait_for_url("**/services/diabetes/")
    expect(page.locator("#timeline")).to_contain_text("Waiting for a worker")
    deployment = Deployment.objects.select_related("revision__source").get()
    assert deployment.state == "queued"
    assert deployment.revision.config["num_replicas"] == 2
    assert deployment.revision.source is not None
    assert sources.read_text(deployment.revision.source, "score.py") == SCRIPT


def test_a_folder_survives_an_error_elsewhere_in_the_form(
    page: Page, cluster: Any, diabetes: ModelVersion, environment: Environment, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    (project / "lib").mkdir(parents=True)
    (project / "score.py").write_text(SCRIPT)
    (project / "lib" / "a.py").write_text("A = 1\n")
    page.goto("/services/_deploy/?model=diabetes:1")
    page.fill("#id_name", "No")
    page.check("[name=serving][value=entry_script]")
    page.check("[name=source_kind][value=upload]")
    page.set_input_files("#id_folder", project)
    page.select_option("#id_environment", "sklearn:1")
    page.get_by_role("button", name="Deploy").click()
    expect(page.locator("#id_name_error")).to_contain_text("Use 3 to 32")
    expect(page.locator(".kept")).to_contain_text("lib/a.py")

    page.fill("#id_name", "risk")
    page.get_by_role("button", name="Deploy").click()
    page.wait_for_url("**/services/risk/")
    source = Deployment.objects.get().revision.source
    assert source is not None
    assert [path for path, _ in sources.listing(source)] == ["lib/a.py", "score.py"]


def test_objects_are_shown_before_they_are_made_and_taken_away(
    page: Page, kubernetes: Any, diabetes: ModelVersion
) -> None:
    page.goto("/services/_deploy/?model=diabetes:1")
    shown = page.get_by_role("button", name="Show the Kubernetes objects")
    page.fill("#id_cpu_cores", "0")
    shown.click()
    expect(page.locator("#id_cpu_cores_error")).to_be_in_viewport()
    page.fill("#id_cpu_cores", "0.3")
    shown.click()
    expect(page.locator("[data-preview]")).to_be_focused()
    with page.expect_download() as taken:
        page.get_by_role("button", name="Download").click()
    text = Path(taken.value.path()).read_text()
    assert taken.value.suggested_filename == "diabetes.yaml"
    assert "cpu: 300m" in text and text == page.locator("#preview-yaml").text_content()
    assert not Deployment.objects.exists()


def test_keys_are_revealed_on_a_click_and_hidden_again(page: Page, service: Service) -> None:
    page.goto("/services/diabetes/consume/")
    keys = page.locator("#keys")
    expect(keys).not_to_contain_text("primary-key-of-the-test")
    page.get_by_role("button", name="Reveal").click()
    expect(keys).to_contain_text("primary-key-of-the-test")
    page.get_by_role("button", name="Hide").click()
    expect(keys).not_to_contain_text("primary-key-of-the-test")


def test_a_service_is_deleted_after_its_name_and_a_second_question(
    page: Page, service: Service
) -> None:
    page.goto("/services/diabetes/settings/")
    page.fill("#id_confirm", "diabetes")
    page.get_by_role("button", name="Delete diabetes").click()
    dialog = page.locator("dialog[open]")
    expect(dialog).to_contain_text("This cannot be undone")
    dialog.get_by_role("button", name="Delete").click()
    page.wait_for_url("**/services/")
    service.refresh_from_db()
    assert service.deleting is True


def test_a_token_is_issued_shown_once_and_revoked(page: Page, service: Service) -> None:
    Service.objects.update(token_auth_enabled=True)
    page.goto("/services/diabetes/consume/")
    page.fill("[name=subject]", "two words")
    page.click("text=Issue a token")
    expect(page.locator("#token-issue .field-error")).to_contain_text("A subject takes")
    page.fill("[name=subject]", "nightly-batch")
    page.click("text=Issue a token")
    shown = page.locator("[data-token]")
    expect(shown).to_contain_text("eyJ")
    token = shown.inner_text()
    page.reload()
    expect(page.locator("#token-list")).to_contain_text("nightly-batch")
    assert token not in page.content()
    page.get_by_role("button", name="Revoke the token of nightly-batch").click()
    page.click("[data-confirm-yes]")
    expect(page.locator("#token-list")).to_contain_text("No token is valid")


def test_opening_a_service_to_everyone_is_asked_about(page: Page, service: Service) -> None:
    page.goto("/services/diabetes/settings/")
    form = page.locator("form[action$='/settings/access/']")
    change = form.locator("button[type=submit]")
    form.locator("[name=auth_enabled]").uncheck()
    change.click()
    dialog = page.locator("#confirm")
    expect(dialog).to_contain_text("anyone who reaches the router")
    dialog.get_by_text("Cancel").click()
    assert Service.objects.get().auth_enabled
    form.locator("[name=token_auth_enabled]").check()
    change.click()  # a token is asked for: nothing to confirm
    expect(page.locator(".service-head")).not_to_contain_text("No authentication")
    expect(page.locator("[name=token_auth_enabled]")).to_be_checked()
    assert not Service.objects.get().auth_enabled
    page.locator("[name=token_auth_enabled]").uncheck()
    change.click()
    page.click("[data-confirm-yes]")
    expect(page.locator(".service-head")).to_contain_text("No authentication")


def test_the_defaults_share_is_what_is_left_as_one_types(
    page: Page, service: Service, environment: Environment, diabetes: ModelVersion
) -> None:
    for name in ("green", "red"):
        serve(service, add_revision(service, environment, [diabetes]), name)
    page.goto("/services/diabetes/versions/")
    rest, bar = page.locator("[data-rest]"), page.locator("[data-part=green]")
    expect(rest).to_have_text("100")
    page.fill("#id_share-green", "30")
    expect(rest).to_have_text("70")
    expect(bar).to_have_attribute("width", "30")
    page.fill("#id_share-red", "71")
    expect(page.locator("[data-too-much]")).to_contain_text("101 %")
    button = page.get_by_role("button", name="Change the split")
    expect(button).to_be_disabled()
    page.fill("#id_share-red", "20")
    expect(page.locator("[data-too-much]")).to_be_hidden()
    button.click()
    expect(page.locator("#versions")).to_contain_text("50 %")

    # the list may be read again while the question stands
    page.locator("#versions tr", has_text="red").get_by_role("button", name="Promote").click()
    page.evaluate("htmx.trigger('#versions', 'live')")
    page.wait_for_timeout(300)
    page.locator("dialog [data-confirm-yes]").click()
    expect(page.get_by_text("red is the default now and has all requests.")).to_be_visible()
    assert ServiceVersion.objects.get(is_default=True).name == "red"
    page.get_by_role("button", name="Undo the promotion").click()
    page.locator("dialog [data-confirm-yes]").click()
    expect(page.get_by_text("As before the promotion")).to_be_visible()
    assert ServiceVersion.objects.get(is_default=True).name == "default"

"""The register form in a real browser: a folder, progress, errors, cancel."""

import re
import time

import pytest
from playwright.sync_api import Page, expect

from deployments.registry.models import ModelVersion
from tests.browser import session_of, tab

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def page(browser, live_server, deployer):
    """A tab in which Dan is signed in."""
    with tab(browser, live_server.url, session_of(deployer)) as page:
        yield page


@pytest.fixture
def folder(tmp_path):
    """`model/` with two files, one of them in a subfolder."""
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "net.onnx").write_bytes(b"weights")
    (folder / "sub" / "labels.txt").write_bytes(b"cat\ndog\n")
    return folder


def _choose_folder(page: Page, folder) -> None:
    page.locator("input[webkitdirectory]").set_input_files(folder)


def test_a_folder_is_registered_through_the_form(page, folder):
    page.goto("/models/")
    page.get_by_role("link", name="Register a model").first.click()
    page.get_by_label("Name").fill("vision")
    _choose_folder(page, folder)
    expect(page.locator("[data-summary]")).to_have_text("2 files, 15 B")
    expect(page.get_by_label("Framework", exact=True)).to_contain_text("Detected: ONNX")
    page.get_by_role("button", name="Register").click()
    page.wait_for_url("**/models/vision/versions/1/")
    expect(page.locator(".toast")).to_contain_text("vision:1 is registered.")
    expect(page.get_by_role("cell", name="model/sub/labels.txt")).to_be_visible()
    version = ModelVersion.objects.get()
    assert version.framework == "Onnx"
    assert [file.path for file in version.files.all()] == ["model/net.onnx", "model/sub/labels.txt"]


def test_a_file_dropped_on_the_form_is_registered(page):
    page.goto("/models/_register/")
    page.get_by_label("Name").fill("dropped")
    dropped = page.evaluate_handle(
        """() => {
            const transfer = new DataTransfer();
            transfer.items.add(new File(["weights"], "net.onnx"));
            return transfer;
        }"""
    )
    page.locator("[data-dropzone]").dispatch_event("drop", {"dataTransfer": dropped})
    expect(page.locator("[data-summary]")).to_have_text("1 file, 7 B")
    page.get_by_role("button", name="Register").click()
    page.wait_for_url("**/models/dropped/versions/1/")
    assert [file.path for file in ModelVersion.objects.get().files.all()] == ["net.onnx"]


def test_what_is_wrong_is_said_before_the_upload_and_the_files_stay(page, folder):
    page.goto("/models/_register/")
    sent = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else 0)
    page.get_by_role("button", name="Register").click()
    expect(page.locator("[data-files-error]")).to_contain_text("Choose at least one file")
    page.get_by_label("Name").fill("two words")
    page.get_by_label("Sample input").fill('{\n"a": }')
    _choose_folder(page, folder)
    page.get_by_role("button", name="Remove model/sub/labels.txt").click()
    page.get_by_role("button", name="Register").click()
    expect(page.locator("#id_sample_input_error")).to_contain_text("line 2, column 6")
    expect(page.get_by_label("Name")).to_have_value("two words")
    expect(page.get_by_label("Name")).to_be_focused()
    assert all(url.endswith("/check/") for url in sent)
    page.get_by_label("Name").fill("vision")
    page.get_by_label("Sample input").fill('{"a": 1}')
    page.get_by_role("button", name="Register").click()
    page.wait_for_url("**/models/vision/versions/1/")
    assert [file.path for file in ModelVersion.objects.get().files.all()] == ["model/net.onnx"]


def test_an_upload_shows_its_progress_and_can_be_cancelled(page, tmp_path):
    big = tmp_path / "big.bin"
    big.write_bytes(b"\0" * 20_000_000)
    page.goto("/models/_register/")
    page.get_by_label("Name").fill("big")
    page.locator("input[type=file]").first.set_input_files(big)
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    network.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 4_000_000},
    )
    page.get_by_role("button", name="Register").click()
    expect(page.locator("[data-sending-title]")).to_have_text("Uploading big, version 1")
    text = page.locator("[data-sending-text]")
    expect(text).to_have_text(re.compile(r"MiB of 19\.1 MiB · .*/s · \d+ s left"))
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("[data-failure]")).to_contain_text("Cancelled. Nothing was registered.")
    expect(page.locator("[data-summary]")).to_have_text("1 file, 19.1 MiB")
    time.sleep(0.3)
    assert not ModelVersion.objects.exists()


def test_without_scripts_the_form_works_too(browser, page, live_server, folder):
    context = browser.new_context(
        base_url=live_server.url,
        java_script_enabled=False,
        storage_state=page.context.storage_state(),
    )
    plain = context.new_page()
    plain.goto("/models/_register/")
    plain.get_by_label("Name").fill("two words")
    plain.locator("input[webkitdirectory]").set_input_files(folder)
    plain.get_by_role("button", name="Register").click()
    expect(plain.locator("#id_name_error")).to_contain_text("Use letters")
    plain.get_by_label("Name").fill("plain")
    plain.locator("input[webkitdirectory]").set_input_files(folder)
    plain.get_by_role("button", name="Register").click()
    plain.wait_for_url("**/models/plain/versions/1/")
    context.close()
    assert [file.path for file in ModelVersion.objects.get().files.all()] == [
        "model/net.onnx",
        "model/sub/labels.txt",
    ]

"""Pictures of every page: light and dark, 1440 and 390 wide, as small PNGs in docs/images."""

import argparse
import io
import os
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

SIZES = {"desktop": (1440, 900), "phone": (390, 844)}
TALLEST = 2400  # pixels; what is longer is cut


def pages(service: str) -> dict[str, str]:
    """Path by picture name."""
    tabs = ("metrics", "logs", "test", "consume", "settings", "history")
    return {
        "overview": "/",
        "models": "/models/",
        "model-register": "/models/_register/",
        "model": f"/models/{service}/",
        "model-version": f"/models/{service}/versions/1/",
        "environments": "/environments/",
        "environment-create": "/environments/_create/",
        "environment": f"/environments/{service}/1/",
        "clusters": "/clusters/",
        "cluster": "/clusters/local/",
        "cluster-attach": "/clusters/_attach/",
        "services": "/services/",
        "service-deploy": "/services/_deploy/",
        "service-overview": f"/services/{service}/",
        **{f"service-{tab}": f"/services/{service}/{tab}/" for tab in tabs},
        "people": "/people/",
        "audit": "/audit/",
        "password": "/password/",
        "admin": "/admin/",
        "admin-services": "/admin/deployments/service/",
    }


def sign_in(page: Page, url: str, user: str, password: str) -> None:
    page.goto(f"{url}/login/")
    page.fill("[name=username]", user)
    page.fill("[name=password]", password)
    page.press("[name=password]", "Enter")
    page.wait_for_url(f"{url}/")


def save(page: Page, path: Path) -> None:
    """Whole page, at most TALLEST high, with 128 colours: a third of the bytes, no visible loss."""
    height = page.evaluate("document.documentElement.scrollHeight")
    width = page.viewport_size["width"]
    page.set_viewport_size({"width": width, "height": min(max(height, 700), TALLEST)})
    page.wait_for_timeout(250)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def shoot(browser: Browser, arguments: argparse.Namespace, theme: str, size: str) -> None:
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, reduced_motion="reduce"
    )
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    wanted = pages(arguments.service)
    if not arguments.only or "login" in arguments.only:
        page.goto(f"{arguments.url}/login/")
        save(page, arguments.folder / f"login-{theme}-{size}.png")
    sign_in(page, arguments.url, arguments.user, os.environ["SLIPWAY_PASSWORD"])
    for name, path in wanted.items():
        if arguments.only and name not in arguments.only:
            continue
        page.set_viewport_size({"width": width, "height": height})
        answer = page.goto(f"{arguments.url}{path}")
        page.wait_for_timeout(2500 if "metrics" in name else 900)
        wide = page.evaluate("document.documentElement.scrollWidth")
        if answer is None or not answer.ok:
            problems.append(f"{path}: {answer.status if answer else 'no answer'}")
        if wide > width:
            problems.append(f"{path}: {wide} px wide in a window of {width}")
        save(page, arguments.folder / f"{name}-{theme}-{size}.png")
        for problem in problems:
            print(f"{name} {theme} {size}: {problem}")
        problems.clear()
    context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--url", default=f"http://127.0.0.1:{os.environ.get('SLIPWAY_PORT', '8000')}"
    )
    parser.add_argument("--user", default="admin")
    parser.add_argument("--service", default="diabetes")
    parser.add_argument("--folder", type=Path, default=Path("docs/images"))
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--theme", choices=("light", "dark"))
    parser.add_argument("--size", choices=tuple(SIZES))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        for theme in (arguments.theme,) if arguments.theme else ("light", "dark"):
            for size in (arguments.size,) if arguments.size else SIZES:
                shoot(browser, arguments, theme, size)
        browser.close()


if __name__ == "__main__":
    main()

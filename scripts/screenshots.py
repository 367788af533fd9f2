"""Pictures of every page, light and dark, 1440 and 390 wide, as small PNGs; and docs/pages.md around them.

A page is one line of PAGES, in the order of docs/pages.md, which each run writes anew from it.
"""

import argparse
import io
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

SIZES = {"desktop": (1440, 900), "phone": (390, 844)}
TALLEST = 2400  # pixels; what is longer is cut
INDEX = Path(__file__).parent.parent / "docs" / "pages.md"


class Picture(NamedTuple):
    """`path` may hold {service}, {cluster}, {docker}, {kubernetes}, {attachment} and {run}; `words` say what
    the page is for, and may be empty."""

    name: str
    path: str
    title: str
    words: str = ""


PAGES = (
    Picture("overview", "/", "Overview", "Everything that runs, how it does, and what happened last."),
    Picture("service-overview", "/services/{service}/", "A service",
            "State with its cause, the deployment's timeline and log, scoring URI, replicas."),
    Picture("service-versions", "/services/{service}/versions/", "Versions",
            "Which version gets what share of the requests; promotion and its undoing are one click each."),
    Picture("service-metrics", "/services/{service}/metrics/", "Metrics",
            "Replicas beside requests, latency and the queue; each scaling decision with its reason."),
    Picture("service-decisions", "/services/{service}/decisions/", "Decisions",
            "Every decision of the autoscaler in words, with its figures and what came of it."),
    Picture("service-what-if", "/services/{service}/what-if/", "What if",
            "A past range run again with other settings: as it was beside as it would be."),
    Picture("service-requests", "/services/{service}/requests/", "Requests",
            "The request log: code, times, version, replica and who asked; never a body."),
    Picture("service-logs", "/services/{service}/logs/", "Logs",
            "The deployment's and all replicas' lines merged, followed, searched, downloaded."),
    Picture("service-test", "/services/{service}/test/", "Test",
            "A request through the router: status, headers, body, timing."),
    Picture("service-consume", "/services/{service}/consume/", "Consume",
            "Scoring URI, keys, tokens with their subjects and expiry, samples."),
    Picture("service-settings", "/services/{service}/settings/", "Settings",
            "A change becomes the next revision; access; deletion."),
    Picture("service-history", "/services/{service}/history/", "History",
            "Revisions and what changed, roll-back, deployments."),
    Picture("services", "/services/", "Services"),
    Picture("services-charts", "/services/_charts/", "Services at a glance",
            "Replicas against demand of every service, and what was rejected."),
    Picture("service-deploy", "/services/_deploy/", "Deploy",
            "The form, with what will happen and whether it fits; for Kubernetes the objects it would make."),
    Picture("local-runs", "/services/_local/", "Local runs",
            "What was run once on this machine, before it was deployed."),
    Picture("local-run", "/services/_local/{run}/", "A local run",
            "The image or virtual environment in the foreground of a page: log, test, the script to edit."),
    Picture("models", "/models/", "Models"),
    Picture("model-register", "/models/_register/", "Register a model",
            "Files or a folder, with progress."),
    Picture("model", "/models/{service}/", "A model"),
    Picture("model-version", "/models/{service}/versions/1/", "A model version",
            "Files, hashes, sample input, where it is used."),
    Picture("environments", "/environments/", "Environments", "By hash: state, size, used by, last used."),
    Picture("environment-create", "/environments/_create/", "New environment",
            "The hash and what this machine will install, while typing."),
    Picture("environment", "/environments/{service}/1/", "An environment",
            "Definition, build and its log."),
    Picture("environment-packages", "/environments/{service}/1/packages/", "What is in an environment",
            "Known vulnerabilities by severity, installed packages, the list to take away."),
    Picture("clusters", "/clusters/", "Clusters"),
    Picture("cluster", "/clusters/{cluster}/", "A cluster",
            "Room, checks with evidence and remedy, the router, signing keys, services."),
    Picture("cluster-docker", "/clusters/{docker}/", "A Docker cluster",
            "The same page of a Docker Engine: its room, what it reaches, what runs on it."),
    Picture("cluster-router", "/clusters/{cluster}/router/", "A cluster's router",
            "Routing time, threads and cores, connections, and every decision on its size in words."),
    Picture("cluster-tls", "/clusters/{cluster}/tls/", "TLS",
            "The certificate that is served, its end, and a new one in its place."),
    Picture("cluster-lines", "/clusters/{cluster}/haproxy/", "HAProxy lines of one's own",
            "Checked by HAProxy before they apply."),
    Picture("cluster-attach", "/clusters/_attach/", "Attach a cluster",
            "This machine or a Docker Engine, which is looked at before it is taken into use."),
    Picture("cluster-attach-kubernetes", "/clusters/_attach/", "Attach Kubernetes",
            "A kubeconfig, how its router is reached, its images, the address for pods."),
    Picture("cluster-attaching", "/clusters/_attaching/{attachment}/", "A cluster that is being attached",
            "Each check as soon as it is done, with what was seen; the remedy where one fails."),
    Picture("cluster-kubernetes", "/clusters/{kubernetes}/", "A Kubernetes cluster",
            "The latest checks, the network that was found, what must be reachable from where."),
    Picture("registries", "/registries/", "Registries",
            "Where images are looked for and pushed to, and what each last said."),
    Picture("registry-add", "/registries/add/", "Add a registry"),
    Picture("people", "/people/", "People"),
    Picture("audit", "/audit/", "Audit", "Who changed what, before and after."),
    Picture("password", "/password/", "Password"),
    Picture("login", "/login/", "Sign in"),
    Picture("admin", "/admin/", "Admin panel"),
    Picture("admin-services", "/admin/deployments/service/", "Services in the admin panel"),
)  # fmt: skip
_SIGNED_OUT = "login"
_ATTACH = "cluster-attach"  # is asked to look at the Docker Engine first
_ATTACH_KUBERNETES = "cluster-attach-kubernetes"  # is filled in, and not sent
_CHARTS = ("service-metrics", "services-charts", "cluster-router")  # that are read and drawn first


def index() -> str:
    """docs/pages.md."""
    parts = [
        "# The pages",
        "Each in light and dark, at 1440 and 390 wide; taken, and this page written, by "
        "`scripts/screenshots` of a running Slipway.",
    ]
    for name, _, title, words in PAGES:
        parts += [f"## {title}", *([words] if words else [])]
        parts.append(f"![{title}](images/{name}-light-desktop.png)")
        others = {"dark": "dark-desktop", "phone": "light-phone", "phone, dark": "dark-phone"}
        parts.append(
            " · ".join(f"[{said}](images/{name}-{kind}.png)" for said, kind in others.items())
        )
    return "\n\n".join(parts) + "\n"


def sign_in(page: Page, url: str, user: str, password: str) -> None:
    page.goto(f"{url}/login/")
    page.fill("[name=username]", user)
    page.fill("[name=password]", password)
    page.press("[name=password]", "Enter")
    page.wait_for_url(f"{url}/")


def fill_in_kubernetes(page: Page) -> None:
    """With names of nowhere."""
    page.check("[name=kind][value=kubernetes]")
    page.check("[name=kube_service_type][value=LoadBalancer]")
    for name, text in {
        "name": "prod",
        "description": "The team's models",
        "router_url": "",
        "kube_router_image": "registry.example.com/ml/slipway/router:1",
        "kube_blob_url": "https://slipway.example.com",
    }.items():
        page.fill(f"[name={name}]", text)
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")


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
    page.set_default_timeout(90_000)  # a busy machine is no reason for no picture
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    wanted = [item for item in PAGES if not arguments.only or item.name in arguments.only]
    wanted.sort(key=lambda item: item.name != _SIGNED_OUT)  # first
    signed_in = False
    for name, where, _, _ in wanted:
        if name != _SIGNED_OUT and not signed_in:
            sign_in(page, arguments.url, arguments.user, os.environ["SLIPWAY_PASSWORD"])
            signed_in = True
        path = where.format(
            service=arguments.service,
            cluster=arguments.cluster,
            docker=arguments.docker,
            kubernetes=arguments.kubernetes,
            attachment=arguments.attachment,
            run=arguments.run,
        )
        page.set_viewport_size({"width": width, "height": height})
        answer = page.goto(f"{arguments.url}{path}")
        if name == _ATTACH:
            page.check("[name=kind][value=docker]")
            page.click("button[name=look]")
            page.wait_for_load_state()
        if name == _ATTACH_KUBERNETES:
            fill_in_kubernetes(page)
        page.wait_for_timeout(2500 if name in _CHARTS else 900)
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
    parser.add_argument("--cluster", default="local")
    parser.add_argument("--docker", default="docks", help="a Docker cluster")
    parser.add_argument("--kubernetes", default="prod", help="a Kubernetes cluster")
    parser.add_argument("--attachment", default="1", help="the number of a try to attach one")
    parser.add_argument("--run", default="1", help="a local run's number")
    parser.add_argument("--folder", type=Path, default=Path("docs/images"))
    parser.add_argument(
        "--only", nargs="*", default=[], choices=[item.name for item in PAGES], metavar="NAME"
    )
    parser.add_argument("--theme", choices=("light", "dark"))
    parser.add_argument("--size", choices=tuple(SIZES))
    arguments = parser.parse_args()
    INDEX.write_text(index(), encoding="utf-8")
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

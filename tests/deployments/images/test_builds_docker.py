"""Images on a real Engine and real registries: found, built once, failed with a cause, tried again."""

import http.server
import json
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import httpx
import pytest

from deployments.environments.changes import create_environment
from deployments.environments.models import Environment
from deployments.errors import PermanentError, SlipwayError, TemporaryError
from deployments.images import attempt, builder_script, causes, registries
from deployments.images.builds import ensure_image
from deployments.images.engines import Place, default_place
from deployments.images.models import ImageBuild, Registry
from deployments.types import EngineSpec
from tests.deployments.images.builder import small_script
from tests.deployments.images.conftest import CA, ENGINE
from tests.deployments.images.registry_server import PASSWORD, USER, RegistryServer

pytestmark = [
    pytest.mark.docker,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(230),
    pytest.mark.usefixtures("builds"),
]

HERE = Place(EngineSpec(ENGINE), runs_there=True)
Start = Callable[..., RegistryServer]
Add = Callable[..., Registry]


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file takes the packages' place."""
    monkeypatch.setattr(builder_script, "script", lambda plan, settings: small_script(0.1))
    monkeypatch.setattr(attempt.ImageAttempt, "_look_into", lambda self, image: None)


def plain(name: str, **values: str) -> Environment:
    """Without a look at the base image's Python, and with a hash of its own."""
    return create_environment(
        None, name=name, conda_yaml="dependencies: [numpy]", pip_requirements=name, **values
    )


def test_an_image_holds_the_packages_and_none_of_the_secrets_it_was_built_with(
    environment: Environment,
    engine: docker.DockerClient,
    start_registry: Start,
    add_registry: Add,
    tidy: Callable[[str], None],
    env: Callable[..., None],
    index: int,
    tmp_path: Path,
) -> None:
    tidy(environment.hash)
    server = start_registry()
    add_registry(server)
    marked = tmp_path / "ca.pem"
    marked.write_text(Path(CA).read_text() + "\n# certificate-of-the-company\n")
    env(
        build_ca_bundle=str(marked),
        build_extra_index_urls=(f"http://reader:secret-of-the-index@127.0.0.1:{index}/simple",),
        build_http_proxy=f"http://user:secret-of-the-proxy@127.0.0.1:{index}",
        build_no_proxy="127.0.0.1",
    )
    lines: list[str] = []
    build = ensure_image(environment, HERE, log=lines.append)

    assert build.reference == f"{server.address}/tests/env@{build.digest}"
    assert server.copies("tests/env") == [environment.hash]
    path = f"tests/env:{environment.hash[:12]} in workspace registry {server.address}"
    assert any(line.startswith(f"Looked for {path}: not there (") for line in lines)
    secrets = (b"secret-of-the", b"certificate-of-the-company")
    assert not any(secret.decode() in line for line in lines for secret in secrets)
    image = engine.images.get(build.reference)
    assert image.attrs["Config"]["User"] == "1000:1000"
    assert not any(secret in json.dumps(image.attrs).encode() for secret in secrets)
    assert not any(secret in json.dumps(image.history()).encode() for secret in secrets)
    exported = tmp_path / "image.tar"
    with exported.open("wb") as file:
        for chunk in image.save():
            file.write(chunk)
    assert [name for name in secrets if _holds(exported, name)] == []
    assert _holds(exported, b"azureml_inference_server_http")  # the search finds what is there
    said = engine.containers.run(
        build.reference,
        ["python", "-c", "import six, azureml_inference_server_http, os; print(os.getuid())"],
        read_only=True,
        tmpfs={"/tmp": ""},
        remove=True,
        network_disabled=True,
    )
    assert said.strip().endswith(b"1000")
    listed = {item["name"] for item in build.sbom["components"]}
    assert {"six", "azureml-inference-server-http"} <= listed

    # one package more: everything else comes from the cache, and the layers before it from the registry
    more = create_environment(None, name="more", pip_requirements="six==1.17.0\nidna\n")
    tidy(more.hash)
    lines.clear()
    assert ensure_image(more, HERE, log=lines.append).reference != build.reference
    assert not any(line.lstrip().startswith(("Downloading", "Fetching")) for line in lines)
    assert any(line.endswith("Layer already exists") for line in lines)

    # and once more: it is looked up and used
    lines.clear()
    again = ensure_image(environment, HERE, log=lines.append)
    assert again.started_at == build.started_at
    assert lines[0].startswith(f"Looked for {path}: found sha256:")


def _holds(archive: Path, wanted: bytes) -> bool:
    """Whether the bytes are anywhere in an exported image, in its layers too."""
    with tarfile.open(archive) as outer:
        for member in outer:
            file = outer.extractfile(member) if member.isreg() else None
            rest = b""
            while file is not None and (chunk := file.read(2**22)):
                if wanted in rest + chunk:
                    return True
                rest = chunk[-len(wanted) :]
    return False


@pytest.fixture
def index() -> Iterator[int]:
    """A package index that has nothing."""

    class Nothing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Nothing) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("quickly")
def test_what_a_global_registry_has_is_pulled_and_not_built(
    engine: docker.DockerClient,
    start_registry: Start,
    add_registry: Add,
    tidy: Callable[[str], None],
) -> None:
    environment = plain("six")
    tidy(environment.hash)
    first, second = start_registry(), start_registry()
    row = add_registry(first)
    built = ensure_image(environment, HERE, log=lambda line: None)
    ImageBuild.objects.all().delete()
    registries.change(None, row, name="shared", role="global")
    add_registry(second)
    for image in engine.images.list(filters={"label": f"slipway.environment={environment.hash}"}):
        engine.images.remove(image.id, force=True)

    lines: list[str] = []
    found = ensure_image(environment, HERE, log=lines.append)
    assert (found.found, found.registry, found.reference) == (True, row, built.reference)
    path = f"Looked for tests/env:{environment.hash[:12]}"
    assert lines[0].startswith(f"{path} in workspace registry {second.address}: not there")
    assert lines[1].startswith(f"{path} in global registry {first.address}: found sha256:")
    assert not any(line.startswith("Building") for line in lines)
    assert second.copies("tests/env") == []
    assert engine.images.get(found.reference).attrs["Size"] == found.size

    # a registry that lost it has it built anew
    data = f"http://{first.address}/v2/tests/env/manifests/{found.digest}"
    assert httpx.delete(data).status_code == 202
    again = ensure_image(environment, HERE, log=lines.append)
    assert (again.found, second.copies("tests/env")) == (False, [environment.hash])


@pytest.mark.usefixtures("quickly")
def test_without_a_registry_the_image_stays_on_the_engine_and_that_is_said(
    engine: docker.DockerClient, tidy: Callable[[str], None]
) -> None:
    environment = plain("six")
    tidy(environment.hash)
    lines: list[str] = []
    build = ensure_image(environment, HERE, log=lines.append)
    assert engine.images.get(build.reference).id == build.reference
    assert any("the image stays on this Engine" in line for line in lines)
    assert ensure_image(environment, HERE, log=lines.append).started_at == build.started_at
    engine.images.remove(build.reference, force=True)
    again = ensure_image(environment, HERE, log=lines.append)
    assert again.started_at != build.started_at
    with pytest.raises(PermanentError) as refused:
        ensure_image(environment, Place(EngineSpec(ENGINE), needs_registry=True), log=lines.append)
    assert refused.value.code == causes.NO_REGISTRY


@pytest.mark.usefixtures("quickly")
def test_a_registry_that_stops_before_the_push_is_a_stated_cause_and_the_next_try_works(
    engine: docker.DockerClient,
    start_registry: Start,
    add_registry: Add,
    tidy: Callable[[str], None],
) -> None:
    environment = plain("six")
    tidy(environment.hash)
    server = start_registry()
    add_registry(server)

    def stop(line: str) -> None:
        if line == "line 0":
            server.stop()

    with pytest.raises(TemporaryError) as failed:
        ensure_image(environment, HERE, log=stop)
    assert failed.value.code == causes.REGISTRY_AWAY
    assert failed.value.message.startswith(
        f"The image was built, but the registry {server.address}"
    )
    assert ImageBuild.objects.get().state == "failed"
    with pytest.raises(TemporaryError, match="cannot be reached"):
        ensure_image(environment, HERE, log=stop)
    server.start()
    assert ensure_image(environment, HERE, log=lambda line: None).state == "ready"
    assert nothing_left(engine, environment)


@pytest.mark.usefixtures("quickly")
def test_wrong_credentials_are_a_stated_cause_and_right_ones_push(
    start_registry: Start, add_registry: Add, tidy: Callable[[str], None]
) -> None:
    environment = plain("six")
    tidy(environment.hash)
    server = start_registry(password=True)
    row = add_registry(server, username=USER, password="wrong")
    with pytest.raises(PermanentError) as failed:
        ensure_image(environment, HERE, log=lambda line: None)
    assert failed.value.code == causes.DENIED
    assert "Check its user and password under Registries" in failed.value.message
    with pytest.raises(PermanentError, match="refused us"):
        registries.test(None, row)
    registries.change(None, row, password=PASSWORD)
    assert "takes images under tests/env" in registries.test(None, row)
    assert ensure_image(environment, HERE, log=lambda line: None).state == "ready"


@pytest.mark.usefixtures("quickly")
def test_a_base_image_that_is_not_there_or_may_not_be_read_is_named(
    start_registry: Start, add_registry: Add
) -> None:
    server, private = start_registry(), start_registry(password=True)
    for where, code in ((server, causes.NOT_FOUND), (private, causes.DENIED)):
        absent = plain("six", base_image=f"{where.address}/nobody/has:this")
        with pytest.raises(PermanentError) as failed:
            ensure_image(absent, default_place(), log=lambda line: None)
        assert failed.value.code == code, failed.value.message
        assert f"{where.address}/nobody/has:this" in failed.value.message
    server.stop()
    away = plain("six", base_image=f"{server.address}/nobody/has:this")
    with pytest.raises(TemporaryError) as failed_later:
        ensure_image(away, default_place(), log=lambda line: None)
    assert failed_later.value.code == causes.REGISTRY_AWAY


@pytest.mark.usefixtures("quickly")
def test_a_docker_step_that_fails_hangs_or_is_cancelled_is_named_and_its_container_gone(
    engine: docker.DockerClient, env: Callable[..., None]
) -> None:
    broken = plain("broken", docker_steps="RUN echo about to fail && exit 3")
    with pytest.raises(PermanentError) as failed:
        ensure_image(broken, default_place(), log=lambda line: None)
    assert failed.value.code == causes.STEP_FAILED
    assert "ended with exit code 3" in failed.value.message
    assert "Its last line: about to fail" in failed.value.message

    hangs = plain("hangs", docker_steps="RUN sleep 987")

    def cancel(line: str) -> None:
        if line.startswith("Step 2"):
            ImageBuild.objects.filter(hash=hangs.hash).update(cancel_asked=True)

    with pytest.raises(SlipwayError) as cancelled:
        ensure_image(hangs, default_place(), log=cancel)
    assert cancelled.value.code == causes.CANCELLED
    env(build_timeout=4)
    with pytest.raises(PermanentError) as late:
        ensure_image(hangs, default_place(), log=lambda line: None)
    assert late.value.code == causes.TIMED_OUT
    assert "at the docker step 'RUN sleep 987'" in late.value.message
    deadline = time.monotonic() + 30
    while any("sleep 987" in str(item) for item in engine.api.containers()):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def nothing_left(engine: docker.DockerClient, environment: Environment) -> bool:
    wanted = {"label": f"slipway.build={environment.hash}"}
    found = [*engine.api.containers(all=True, filters=wanted), *engine.api.images(filters=wanted)]
    return found == []

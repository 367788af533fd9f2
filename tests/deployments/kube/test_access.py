"""A kubeconfig is read, and nothing of it run or opened."""

import base64

import pytest
import yaml

from deployments.errors import InvalidInput
from deployments.kube import access
from deployments.types import KubeSpec

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def config(*, user=None, cluster=None, **more) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "one",
            "contexts": [
                {"name": "other", "context": {"cluster": "c", "user": "nobody"}},
                {"name": "one", "context": {"cluster": "c", "user": "u", "namespace": "models"}},
            ],
            "clusters": [
                {
                    "name": "c",
                    "cluster": {
                        "server": "https://10.0.0.1:6443/",
                        "certificate-authority-data": b64(PEM),
                        **(cluster or {}),
                    },
                }
            ],
            "users": [
                {"name": "u", "user": user or {"token": "secret"}},
                {"name": "nobody", "user": {}},
            ],
            **more,
        }
    )


def test_the_current_context_is_taken():
    assert access.parse(config()) == KubeSpec(
        "https://10.0.0.1:6443", ca=PEM, token="secret", namespace="models"
    )
    assert access.contexts(config()) == ("one", "other")


def test_a_client_certificate_needs_its_key():
    both = {"client-certificate-data": b64(PEM), "client-key-data": b64(PEM)}
    assert access.parse(config(user=both)).key == PEM
    with pytest.raises(InvalidInput, match="together"):
        access.parse(config(user={"client-certificate-data": b64(PEM), "token": "t"}))


def test_a_program_is_let_in_by_an_administrator_alone():
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "aws"}}
    with pytest.raises(InvalidInput, match="runs the program aws.*SLIPWAY_KUBECONFIG_PROGRAMS"):
        access.parse(config(user=user))
    assert '"aws"' in access.parse(config(user=user), allow_programs=True).program


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (config(user={"auth-provider": {"name": "gcp"}}), "auth-provider"),
        (config(user={"tokenFile": "/etc/passwd"}), "tokenFile names a file"),
        (config(user={"client-key": "/root/key"}), "client-key names a file"),
        (config(user={"token": "t", "as": "admin"}), "acts as another user"),
        (config(user={"username": "u", "password": "p"}), "password"),
        (config(cluster={"insecure-skip-tls-verify": True}), "insecure-skip-tls-verify"),
        (config(cluster={"certificate-authority": "ca.pem"}), "certificate-authority names"),
        (config(cluster={"server": "http://10.0.0.1"}), "https"),
        (config(cluster={"server": "https://"}), "not an address"),
        (config(cluster={"certificate-authority-data": "???"}), "not a PEM"),
        (config(cluster={"proxy-url": "http://p"}), "proxy-url"),
        ("a: [", "not YAML in line 1"),
        ("- list", "not a kubeconfig"),
        ("kind: Pod", "not a kubeconfig"),
        ("kind: Config", "no context"),
        (yaml.safe_dump({"contexts": ["x"]}), "contexts is not a list"),
    ],
)
def test_what_is_refused_is_said(given, said):
    with pytest.raises(InvalidInput, match=said) as caught:
        access.parse(given)
    assert caught.value.field == "kubeconfig"
    assert "secret" not in caught.value.message


def test_a_context_must_be_there_and_have_credentials():
    with pytest.raises(InvalidInput, match="no context two in it; it has one, other"):
        access.parse(config(), "two")
    with pytest.raises(InvalidInput, match="neither a token nor"):
        access.parse(config(), "other")
    several = config().replace("current-context: one\n", "")
    with pytest.raises(InvalidInput, match="Choose one"):
        access.parse(several)


def test_a_secret_is_not_shown():
    assert "secret" not in repr(access.parse(config()))


def test_a_pod_knows_its_own_api_server():
    assert access.inside({}) is None
    found = access.inside({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"})
    assert found == KubeSpec("https://[fd00::1]:443", in_cluster=True)

"""Forms of the clusters pages. They check and convert; `deployments.clusters.changes` decides."""

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from django import forms
from django.conf import settings
from django.core.validators import URLValidator
from django.http import QueryDict

from deployments import sealed
from deployments.clusters.models import Cluster, Sku
from deployments.errors import SlipwayError
from deployments.types import EngineSpec
from portal.forms.fields import set_choices
from portal.forms.kubernetes import KubernetesFields

# What can be attached at all, and in which words it is offered or not yet.
KIND_NOTES = {
    Cluster.Kind.PROCESS.value: "Replicas are processes of this machine; nothing else is needed.",
    Cluster.Kind.DOCKER.value: "Replicas are containers of a Docker Engine.",
    Cluster.Kind.KUBERNETES.value: "Replicas are pods of a Kubernetes cluster.",
}


_PEM = {"rows": 4, "autocomplete": "off", "spellcheck": "false", "class": "mono"}
_KEPT = "kept_key"
_SAY_WHERE = "Say where clients reach its router."
_SECRETS = frozenset(
    {"kubeconfig", "kubeconfig_file", "kept_kubeconfig", "engine_key", "kept_key", "engine_cert"}
)


def without_key(sent: QueryDict) -> QueryDict:
    """What was sent, with the Engine's key sealed: a page that comes back must not hold it readable."""
    data = sent.copy()
    if key := data.get("engine_key", "").strip():
        data[_KEPT] = sealed.seal(key, sealed.ENGINE_KEYS)
        data["engine_key"] = ""
    return data


def this_machine() -> str:
    """Where clients reach the router of the cluster that this machine is."""
    env = settings.ENV
    return env.router_url or f"http://{env.router_bind}:{env.router_port}"


def sku_words(sku: Sku) -> str:
    """`Standard_NC6 (6 vCPU, 56 GiB, NVIDIA Tesla K80)`; what is empty is read from the machine."""
    parts = []
    if sku.vcpu is not None:
        parts.append(f"{sku.vcpu} vCPU")
    if sku.memory_gb is not None:
        parts.append(f"{sku.memory_gb:g} GiB")
    if sku.accelerator:
        count = f"{sku.accelerators} × " if sku.accelerators > 1 else ""
        parts.append(f"{count}{sku.accelerator}")
    return f"{sku.name} ({', '.join(parts)})" if parts else f"{sku.name} (read from it)"


def learnt(data: Mapping[str, Any]) -> bool:
    """Whether a Kubernetes cluster says itself where a router of this form's service type is reached."""
    return data.get("kube_service_type", "") in (
        Cluster.ServiceType.NODE_PORT.value,
        Cluster.ServiceType.LOAD_BALANCER.value,
    )


def checked_router_url(url: str) -> str:
    """Where clients reach a router. Raises ValidationError."""
    scheme, _, rest = url.partition("://")
    if scheme not in ("http", "https") or not rest or "/" in rest or "@" in rest:
        raise forms.ValidationError(
            "Write scheme, host and port only, such as http://127.0.0.1:8080."
        )
    host = rest.rpartition(":")[0] if ":" in rest and not rest.endswith("]") else rest
    if "." in host or host == "localhost" or host.startswith("["):
        URLValidator(schemes=["http", "https"])(url)
    return url


class ConnectionForm(KubernetesFields):
    """How an attached Kubernetes cluster is reached and used. No kubeconfig keeps the one that is known."""

    router_url = forms.CharField(
        label="Router address",
        required=False,
        max_length=512,
        help_text="Where clients reach this cluster’s router; scoring addresses begin with it. Empty for "
        "LoadBalancer and NodePort: what the cluster says itself.",
    )

    def __init__(self, *args: Any, namespace: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        del self.fields["kube_namespace"]
        self._namespace = namespace

    def clean_router_url(self) -> str:
        url = self.cleaned_data["router_url"].strip().rstrip("/")
        if not url and not learnt(self.data):
            raise forms.ValidationError(_SAY_WHERE)
        return checked_router_url(url) if url else ""

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        cleaned["kube_namespace"] = self._namespace
        self.spec = self.kube_spec() if self.has_kubeconfig or self.wants_inside else None
        self.wanted = self.use()
        return cleaned


class AttachForm(KubernetesFields):
    """A cluster to take into use. `kinds` are those that can be attached now."""

    name = forms.CharField(
        label="Name",
        max_length=24,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text="3 to 24 letters, digits and '-'. This machine is attached as “local”.",
    )
    kind = forms.ChoiceField(label="Kind", widget=forms.RadioSelect)
    purpose = forms.ChoiceField(
        label="Purpose",
        choices=[
            (Cluster.Purpose.DEV_TEST.value, "Dev-test: one machine, a small router"),
            (
                Cluster.Purpose.FAST_PROD.value,
                "FastProd: at least 3 machines and 12 vCPU, a router on three of them",
            ),
            (
                Cluster.Purpose.DENSE_PROD.value,
                "DenseProd: the same machines, many small services packed on each",
            ),
        ],
        initial=Cluster.Purpose.DEV_TEST.value,
        widget=forms.RadioSelect,
    )
    sku = forms.ChoiceField(label="Machine size (SKU)")
    engine_url = forms.CharField(
        label="Docker Engine",
        required=False,
        max_length=200,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text="unix:///path/of/its/socket of this machine, or tcp://host:port; TLS is a must elsewhere.",
    )
    engine_ca = forms.CharField(
        label="Its authority (PEM)", required=False, widget=forms.Textarea(_PEM)
    )
    engine_cert = forms.CharField(
        label="Client certificate (PEM)", required=False, widget=forms.Textarea(_PEM)
    )
    engine_key = forms.CharField(
        label="Client key (PEM)", required=False, widget=forms.Textarea(_PEM)
    )
    kept_key = forms.CharField(required=False, widget=forms.HiddenInput)
    router_port = forms.IntegerField(
        label="Port of its router",
        required=False,
        min_value=1,
        max_value=65534,
        help_text="On this machine; with a certificate it answers TLS on the next one.",
    )
    router_url = forms.CharField(
        label="Router address",
        required=False,
        max_length=512,
        help_text="Where clients reach this cluster’s router; scoring addresses begin with it. "
        "Empty for Docker: this machine, at the port below. Empty for Kubernetes with a LoadBalancer or "
        "NodePort: what the cluster says itself; with ClusterIP give its ingress.",
    )
    description = forms.CharField(
        label="Description", required=False, max_length=2000, widget=forms.Textarea({"rows": 2})
    )

    def __init__(self, *args: Any, kinds: tuple[str, ...], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        offered = [
            (kind, f"{Cluster.Kind(kind).label}. {KIND_NOTES[kind]}")
            for kind in Cluster.Kind.values
            if kind in kinds
        ]
        set_choices(self, "kind", offered)
        self.fields["kind"].initial = kinds[0] if kinds else None
        skus = Sku.objects.order_by("provider", "family", "vcpu", "name")
        groups = [
            (group, [(sku.name, sku_words(sku)) for sku in rows])
            for group, rows in groupby(
                skus, key=lambda sku: f"{sku.provider}, {sku.get_family_display()}"
            )
        ]
        set_choices(self, "sku", groups)

    def clean_sku(self) -> Sku:
        return Sku.objects.get(name=self.cleaned_data["sku"])

    def clean_kept_key(self) -> str:
        sealed_key = self.cleaned_data["kept_key"]
        if not sealed_key:
            return ""
        try:
            return sealed.unseal(
                sealed_key, sealed.ENGINE_KEYS, what="The key", remedy="paste it again"
            )
        except SlipwayError as error:
            raise forms.ValidationError(error.message) from error

    def engine(self) -> EngineSpec:
        """The Engine as it was given."""
        cleaned = self.cleaned_data
        return EngineSpec(
            cleaned.get("engine_url", ""),
            cleaned.get("engine_ca", ""),
            cleaned.get("engine_cert", ""),
            cleaned.get("engine_key") or cleaned.get(_KEPT, ""),
        )

    def clean(self) -> dict[str, Any]:
        """A Kubernetes cluster's parts are read together; `kube` holds them."""
        cleaned = super().clean() or self.cleaned_data
        if cleaned.get("kind") == Cluster.Kind.KUBERNETES.value:
            spec, use = self.kube_spec(), self.use()
            if spec is not None and use is not None:
                self.kube = {"spec": spec, "use": use}
        return cleaned

    def kubernetes(self) -> dict[str, Any]:
        """What `changes.attach_kubernetes` takes. `asked` fills the form in again; no credentials in it."""
        plain = ("name", "purpose", "sku", "router_url", "description")
        values = {name: self.cleaned_data[name] for name in plain}
        asked = {
            name: self.data.get(name, "")
            for name in self.fields
            if name not in _SECRETS and self.data.get(name)
        }
        return {**values, **self.kube, "asked": asked}

    def values(self) -> dict[str, Any]:
        """What `changes.attach` takes."""
        plain = ("name", "kind", "purpose", "sku", "router_url", "description")
        values = {name: self.cleaned_data[name] for name in plain}
        if values["kind"] == Cluster.Kind.DOCKER.value:
            values |= {"engine": self.engine(), "router_port": self.cleaned_data["router_port"]}
        return values

    def clean_router_url(self) -> str:
        url = self.cleaned_data["router_url"].strip().rstrip("/")
        docker = self.data.get("kind") == Cluster.Kind.DOCKER.value
        port = self.cleaned_data.get("router_port")
        host = settings.ENV.router_bind
        if docker and port and url in ("", f"http://{host}:{settings.ENV.router_port}"):
            return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        if self.data.get("kind") == Cluster.Kind.KUBERNETES.value and learnt(self.data):
            return checked_router_url(url) if url and url != this_machine() else ""
        if not url:
            raise forms.ValidationError(_SAY_WHERE)
        return checked_router_url(url)

"""The fields of a Kubernetes cluster on the attach page: its kubeconfig, and how it is used.

A kubeconfig is sealed as soon as it comes: a page that comes back carries the sealed text only, and nobody is
shown what was given.
"""

import contextlib
import os
from typing import Any

from django import forms
from django.http import QueryDict
from django.utils.datastructures import MultiValueDict

from deployments import sealed
from deployments.clusters import kubes
from deployments.clusters.models import Cluster
from deployments.errors import InvalidInput, SlipwayError
from deployments.kube import access
from deployments.types import KubeSpec

KEPT = "kept_kubeconfig"
_LARGEST = 1_000_000  # bytes
_PLAIN = {"autocomplete": "off", "spellcheck": "false"}


def without_kubeconfig(data: QueryDict, files: MultiValueDict) -> str:
    """Seal what was sent, in place. What is wrong with an uploaded file, else ""."""
    text = data.get("kubeconfig", "").strip()
    upload = files.get("kubeconfig_file")
    wrong = ""
    if upload is not None and not text:
        content = upload.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            wrong = "The file is larger than a kubeconfig can be."
        else:
            try:
                text = content.decode()
            except UnicodeDecodeError:
                wrong = "The file is not text."
    if text:
        data[KEPT] = sealed.seal(text, sealed.KUBECONFIGS)
        data["kubeconfig"] = ""
    return wrong


class KubernetesFields(forms.Form):
    """`kubernetes()` is what they come to; `wrong_file` is said beside the file."""

    kube_inside = forms.BooleanField(
        label="The cluster that Slipway itself runs in, with this pod’s service account",
        required=False,
    )
    kubeconfig_file = forms.FileField(
        label="Kubeconfig",
        required=False,
        widget=forms.FileInput(attrs={"class": "file"}),
        help_text="Of a service account made for Slipway, with its certificates in it: "
        "kubectl config view --raw --minify --flatten.",
    )
    kubeconfig = forms.CharField(
        label="or paste it",
        required=False,
        widget=forms.Textarea({"rows": 6, "class": "mono", **_PLAIN}),
    )
    kept_kubeconfig = forms.CharField(required=False, widget=forms.HiddenInput)
    kube_context = forms.CharField(
        label="Context",
        required=False,
        widget=forms.Select,
        help_text="One of the kubeconfig’s; its current one where none is chosen.",
    )
    kube_namespace = forms.CharField(
        label="Namespace",
        required=False,
        max_length=63,
        initial="slipway",
        widget=forms.TextInput(_PLAIN),
        help_text="All that Slipway makes is in it. It is made where it is missing.",
    )
    kube_service_type = forms.ChoiceField(
        label="How the router is reached",
        required=False,
        choices=Cluster.ServiceType.choices,
        initial=Cluster.ServiceType.CLUSTER_IP.value,
        widget=forms.RadioSelect,
    )
    kube_node_port = forms.IntegerField(
        label="Port of the nodes",
        required=False,
        min_value=1,
        max_value=65535,
        help_text="For NodePort. Empty: the cluster chooses one.",
    )
    kube_pull_secret = forms.CharField(
        label="Pull secret",
        required=False,
        max_length=253,
        widget=forms.TextInput(_PLAIN),
        help_text="A Secret of the namespace, for images. Empty: made from the Registries page.",
    )
    kube_router_image = forms.CharField(
        label="Router’s image",
        required=False,
        max_length=400,
        widget=forms.TextInput(_PLAIN),
        help_text="As scripts/router-image pushed it, where nodes can pull it.",
    )
    kube_blob_url = forms.CharField(
        label="This portal, as pods reach it",
        required=False,
        max_length=300,
        widget=forms.TextInput(_PLAIN),
        help_text="Pods fetch models’ files there. Empty: SLIPWAY_NODE_URL.",
    )

    def __init__(self, *args: Any, wrong_file: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._wrong_file = wrong_file
        self.inside = access.inside(os.environ)
        if self.inside is None:
            del self.fields["kube_inside"]
        self.contexts: tuple[str, ...] = ()
        text = self._text()
        if text:
            with contextlib.suppress(InvalidInput):  # said when it is read
                self.contexts = access.contexts(text)
        chosen = self.data.get("kube_context", "") if self.is_bound else ""
        names = (*self.contexts, *((chosen,) if chosen and chosen not in self.contexts else ()))
        widget = self.fields["kube_context"].widget
        widget.choices = [("", "its current one"), *((name, name) for name in names)]

    def _text(self) -> str:
        """The kubeconfig as it was given now or before; never for a page."""
        kept = self.data.get(KEPT, "") if self.is_bound else ""
        if not kept:
            return ""
        try:
            return sealed.unseal(
                kept, sealed.KUBECONFIGS, what="The kubeconfig", remedy="paste it again"
            )
        except SlipwayError:
            return ""

    @property
    def has_kubeconfig(self) -> bool:
        return bool(self._text())

    @property
    def wants_inside(self) -> bool:
        return self.inside is not None and bool(self.cleaned_data.get("kube_inside"))

    def found(self) -> kubes.Found | None:
        """Read what was given and ask its API server. Adds the field's error and is None when it is wrong."""
        text = self._given()
        if text is None:
            return None
        try:
            return kubes.look(text, self.data.get("kube_context", "").strip())
        except InvalidInput as error:
            self._say(error)
            return None

    def kube_spec(self) -> KubeSpec | None:
        """How its API server is reached. Adds the field's error and is None when that is wrong."""
        if self.wants_inside:
            return self.inside
        text = self._given()
        if text is None:
            return None
        try:
            return kubes.parse(text, self.data.get("kube_context", "").strip())
        except InvalidInput as error:
            self._say(error)
            return None

    def use(self) -> kubes.Use | None:
        """How it is used. Adds the field's error and is None when that is wrong."""
        cleaned = self.cleaned_data
        try:
            return kubes.use(
                kubes.Use(
                    namespace=cleaned.get("kube_namespace", "").strip(),
                    service_type=cleaned.get("kube_service_type")
                    or Cluster.ServiceType.CLUSTER_IP.value,
                    node_port=cleaned.get("kube_node_port"),
                    pull_secret=cleaned.get("kube_pull_secret", "").strip(),
                    router_image=cleaned.get("kube_router_image", "").strip(),
                    blob_url=cleaned.get("kube_blob_url", "").strip(),
                )
            )
        except InvalidInput as error:
            self._say(error)
            return None

    def _given(self) -> str | None:
        if self._wrong_file:
            self.add_error("kubeconfig_file", self._wrong_file)
            return None
        text = self._text()
        if not text:
            self.add_error("kubeconfig", "Give a kubeconfig: upload it, or paste it.")
            return None
        return text

    def _say(self, error: InvalidInput) -> None:
        self.add_error(error.field if error.field in self.fields else None, error.message)

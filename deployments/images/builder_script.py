"""What a builder container runs: a shell script that installs an environment's packages.

PURE. The script goes in through standard input and is kept on a tmpfs, so its secrets (index addresses with
passwords, proxies, certificates) are in no configuration, no layer and no history. Packages end up under
`layers.PREFIX`, which alone is copied into the image, cut into layers; downloads stay in a volume that all
builds share.
"""

import re
import shlex
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from deployments.environments.mapping import SCORING_SERVER
from deployments.images import layers
from deployments.images.layers import PREFIX
from deployments.images.plan import ImagePlan

FOLDER = "/run/slipway"  # a tmpfs
CACHE = "/cache"  # the volume

# Exit codes of the script; any other is the installer's own.
NO_PYTHON, NO_PIP, NO_SERVER, NO_MICROMAMBA, CONDA_FAILED = 81, 82, 83, 84, 85

_END = "SLIPWAY_END_OF_FILE"
_SECRET = re.compile(r"//([^/@\s]*)@")


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """A company's own: where packages come from and what is trusted. All of it is secret."""

    installer: str = "uv"
    uv_version: str = ""
    index_url: str = field(default="", repr=False)
    extra_index_urls: tuple[str, ...] = field(default=(), repr=False)
    http_proxy: str = field(default="", repr=False)
    https_proxy: str = field(default="", repr=False)
    no_proxy: str = ""
    ca_pem: str = field(default="", repr=False)
    micromamba_url: str = field(default="", repr=False)
    conda_alias: str = field(default="", repr=False)

    @property
    def proxies(self) -> dict[str, str]:
        """As build arguments and as variables, in both spellings that programs read."""
        given = {
            "http_proxy": self.http_proxy,
            "https_proxy": self.https_proxy,
            "no_proxy": self.no_proxy,
        }
        return {
            spelling: value
            for name, value in given.items()
            if value
            for spelling in (name, name.upper())
        }


def script(plan: ImagePlan, settings: BuildSettings) -> str:
    """The whole script."""
    parts = [_HEAD, _file("requirements.txt", "\n".join(plan.requirements))]
    parts += [f"export {name}={shlex.quote(value)}" for name, value in settings.proxies.items()]
    if settings.ca_pem:
        parts += [_file("extra-ca.pem", settings.ca_pem), _TRUST]
    parts += _index(settings)
    if plan.conda:
        parts += [_conda_file(plan), _conda(settings)]
    else:
        parts.append(_VENV_UV if settings.installer == "uv" else _VENV_PIP)
    parts.append(_install_uv(settings) if settings.installer == "uv" else _INSTALL_PIP)
    parts.append(_CHECK)
    if not plan.conda:  # conda's packages write into each other's folders
        parts += [_file("layers.py", layers.SCRIPT), _CUT]
    return "\n".join(parts) + "\n"


def hide(line: str, settings: BuildSettings) -> str:
    """The line without users and passwords of addresses, wherever an installer repeats one."""
    urls = (
        settings.index_url,
        *settings.extra_index_urls,
        settings.http_proxy,
        settings.https_proxy,
        settings.micromamba_url,
        settings.conda_alias,
    )
    for url in urls:
        password = _password(url)
        if password:
            line = line.replace(password, "****")
    return _SECRET.sub("//****@", line) if "://" in line else line


def _password(url: str) -> str:
    try:
        return urlsplit(url).password or ""
    except ValueError:
        return ""


def _file(name: str, content: str) -> str:
    clean = "\n".join(line for line in content.splitlines() if line != _END)
    return f"cat >{FOLDER}/{name} <<'{_END}'\n{clean}\n{_END}"


_HEAD = f"""set -eu
umask 022
say() {{ printf '%s\\n' "$*"; }}
trap '' PIPE
export HOME={FOLDER} TMPDIR=/tmp PYTHONNOUSERSITE=1 PYTHONUNBUFFERED=1 NO_COLOR=1
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV || true
mkdir -p {CACHE}/pip {CACHE}/uv {CACHE}/tools {CACHE}/mamba
export PIP_CACHE_DIR={CACHE}/pip UV_CACHE_DIR={CACHE}/uv UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore PIP_PROGRESS_BAR=off
export UV_NO_PROGRESS=1 UV_HTTP_TIMEOUT="${{PIP_DEFAULT_TIMEOUT:-60}}" """.rstrip()

# The system's certificates and the company's in one file; what the base image trusts it still trusts.
_TRUST = f"""for found in "${{SSL_CERT_FILE:-}}" /etc/ssl/certs/ca-certificates.crt \\
    /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
  if [ -n "$found" ] && [ -s "$found" ]; then cat "$found" >{FOLDER}/ca.pem; break; fi
done
cat {FOLDER}/extra-ca.pem >>{FOLDER}/ca.pem
export SSL_CERT_FILE={FOLDER}/ca.pem PIP_CERT={FOLDER}/ca.pem REQUESTS_CA_BUNDLE={FOLDER}/ca.pem
export CURL_CA_BUNDLE={FOLDER}/ca.pem"""


def _index(settings: BuildSettings) -> list[str]:
    lines = []
    if settings.index_url:
        quoted = shlex.quote(settings.index_url)
        lines.append(f"export PIP_INDEX_URL={quoted} UV_DEFAULT_INDEX={quoted}")
    if settings.extra_index_urls:
        quoted = shlex.quote(" ".join(settings.extra_index_urls))
        lines.append(f"export PIP_EXTRA_INDEX_URL={quoted} UV_INDEX={quoted}")
    return lines


_FIND_PYTHON = f"""python=$(command -v python3 || command -v python) || {{
  say "There is no Python in this image."; exit {NO_PYTHON}; }}
say "Python: $("$python" -c 'import sys; print(sys.version.split()[0], sys.executable)')"
tool_python=$python
"""

# Without pip in it: uv installs from outside, and the image is 10 MB smaller.
_VENV_UV = _FIND_PYTHON + f'"$python" -m venv --without-pip {PREFIX}'

_VENV_PIP = (
    _FIND_PYTHON
    + f""""$python" -m venv {PREFIX} || {{
  say "This Python cannot make virtual environments with pip."; exit {NO_PIP}; }}"""
)


def _install_uv(settings: BuildSettings) -> str:
    """uv comes from the packages' own index, once a kind of machine; it makes warm builds short."""
    version = shlex.quote(settings.uv_version)
    return f"""kind=$("$tool_python" -c 'import platform, sysconfig
print(sysconfig.get_platform(), platform.libc_ver()[0] or "musl", sep="-")')
tools={CACHE}/tools/uv-{version}-$kind
if [ ! -x "$tools/bin/uv" ]; then
  "$tool_python" -m pip --version >/dev/null 2>&1 || {{ say "This Python has no pip."; exit {NO_PIP}; }}
  say "Fetching uv {version}."
  fresh="$tools.$(cat /proc/sys/kernel/random/uuid)"
  "$tool_python" -m pip install --quiet --target "$fresh" uv=={version}
  mv -T "$fresh" "$tools" 2>/dev/null || rm -rf "$fresh"
fi
export PYC_INVALIDATION_MODE=UNCHECKED_HASH
"$tools/bin/uv" pip install --color never --compile-bytecode --python {PREFIX}/bin/python \\
  -r {FOLDER}/requirements.txt"""


# a date makes pip's compiled files hold the hash of their source, not its time
_INSTALL_PIP = (
    f"SOURCE_DATE_EPOCH=315532800 {PREFIX}/bin/python -m pip install --no-color "
    f"-r {FOLDER}/requirements.txt"
)


def _conda_file(plan: ImagePlan) -> str:
    lines = ["channels:", *(f"  - {name}" for name in plan.channels)]
    lines += ["dependencies:", *(f"  - {_quoted(text)}" for text in plan.conda)]
    return _file("conda.yml", "\n".join(lines))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _conda(settings: BuildSettings) -> str:
    url = shlex.quote(settings.micromamba_url)
    alias = (
        f"export MAMBA_CHANNEL_ALIAS={shlex.quote(settings.conda_alias)}"
        if settings.conda_alias
        else ""
    )
    return f"""case $(uname -m) in
  x86_64) platform=linux-64 ;; aarch64|arm64) platform=linux-aarch64 ;;
  ppc64le) platform=linux-ppc64le ;; *) platform=linux-$(uname -m) ;;
esac
mamba={CACHE}/tools/micromamba-$platform
if [ ! -x "$mamba" ]; then
  url=$(printf '%s' {url} | sed "s/{{platform}}/$platform/")
  say "Fetching micromamba."
  fresh={FOLDER}/micromamba.tar.bz2
  {{ command -v curl >/dev/null && curl -fsSL --retry 2 -o "$fresh" "$url"; }} ||
    {{ command -v wget >/dev/null && wget -q -O "$fresh" "$url"; }} ||
    {{ command -v python3 >/dev/null && python3 -c 'import sys, urllib.request
urllib.request.urlretrieve(sys.argv[1], sys.argv[2])' "$url" "$fresh"; }} ||
    {{ say "micromamba could not be fetched."; exit {NO_MICROMAMBA}; }}
  mkdir -p {FOLDER}/unpacked
  tar -xjf "$fresh" -C {FOLDER}/unpacked bin/micromamba 2>/dev/null ||
    python3 -c 'import sys, tarfile
tarfile.open(sys.argv[1]).extract("bin/micromamba", sys.argv[2])' "$fresh" {FOLDER}/unpacked ||
    {{ say "micromamba could not be unpacked: the image has neither tar with bzip2 nor Python."
       exit {NO_MICROMAMBA}; }}
  own="$mamba.$(cat /proc/sys/kernel/random/uuid)"
  cp {FOLDER}/unpacked/bin/micromamba "$own" && chmod 755 "$own" && mv "$own" "$mamba"
fi
export MAMBA_ROOT_PREFIX={CACHE}/mamba CONDA_PKGS_DIRS={CACHE}/mamba/pkgs MAMBA_ALWAYS_COPY=true
{alias}
"$mamba" create --yes --quiet --no-rc -p {PREFIX} -f {FOLDER}/conda.yml || exit {CONDA_FAILED}
tool_python={PREFIX}/bin/python"""


# What is never imported is not known to work: a missing setuptools shows here, not in a replica.
_CHECK = f"""cd /
{PREFIX}/bin/python -c 'import {SCORING_SERVER.replace("-", "_")}.amlserver' || exit {NO_SERVER}
chmod -R a+rX {PREFIX}
say "The packages are installed: $(du -sk {PREFIX} | cut -f1) KiB." """.rstrip()

_CUT = f'"$tool_python" {FOLDER}/layers.py'

"""What our router is compared with, and the servers behind all of them.

Each peer as its own documentation sets it up for speed: connections to the replica kept, no log, one
worker, buffers that suit large bodies. A peer is its port and the pids whose CPU time is the proxy's.
"""

import contextlib
import subprocess
import sys
from pathlib import Path

from bench.routing import install
from bench.routing.load import REPLICA
from bench.routing.processes import BenchError, Programs, family, free_port, pin
from router.haproxy.process import find_binary

Peer = tuple[int, tuple[int, ...]]

_HERE = Path(__file__).parent
_RAY_SECONDS = 90

# The least that is a proxy in the same mode: no rule, no limit, no check.
_BARE = """\
global
    nbthread 1
    maxconn 1000
defaults
    mode http
    timeout client 65s
    timeout connect 1s
    timeout server 60s
    option {mode}
    http-reuse safe
frontend bare
    bind 127.0.0.1:{port}
    default_backend replicas
backend replicas
    balance leastconn
{servers}
"""

_NGINX = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 1000; }}
http {{
    access_log off;
    keepalive_timeout 65s;
    keepalive_requests 1000000000;
    client_max_body_size 200m;
    client_body_buffer_size 1m;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    upstream replicas {{
        server 127.0.0.1:{upstream};
        keepalive 128;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://replicas;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_request_buffering {buffering};
        }}
    }}
}}
"""

_ENVOY_TYPES = "type.googleapis.com/envoy.extensions.filters"
_ENVOY = """\
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": {types}.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          generate_request_id: false
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{prefix: "/"}}
                route: {{cluster: replicas}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": {types}.http.router.v3.Router
  clusters:
  - name: replicas
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: replicas
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}
"""


def upstream(programs: Programs, core: int) -> tuple[int, Path]:
    """What answers small requests: its port and its unix socket."""
    port, socket = free_port(), programs.folder / "up.sock"
    programs.start("upstream", REPLICA, core, {"REPLICA": f"serve {port} {socket}"})
    programs.answering("upstream", port)
    return port, socket


def body_upstream(programs: Programs, core: int) -> int:
    """What reads large bodies: its port."""
    port = free_port()
    programs.start("bodies", [sys.executable, "-m", "bench.routing.bodies", port], core)
    programs.answering("bodies", port)
    return port


def bare_haproxy(
    programs: Programs,
    core: int,
    addresses: tuple[str, ...],
    *,
    server_close: bool = False,
    name: str = "bare",
) -> Peer:
    """HAProxy of the same version in the same connection mode; `addresses` are the replicas'."""
    port = free_port()
    text = _BARE.format(
        port=port,
        mode="http-server-close" if server_close else "http-keep-alive",
        servers="\n".join(
            f"    server s{index} {address}" for index, address in enumerate(addresses)
        ),
    )
    return _answering(programs, name, port, _haproxy(programs, name, text, core))


def nginx(
    programs: Programs, core: int, upstream: int, *, buffering: bool = True, name: str = "nginx"
) -> Peer:
    port = free_port()
    text = _NGINX.format(
        folder=programs.folder,
        port=port,
        upstream=upstream,
        buffering="on" if buffering else "off",
    )
    config = programs.folder / f"{name}.conf"
    config.write_text(text)
    binary = install.program("nginx", "nginx")
    pid = programs.start(name, [binary, "-c", config, "-p", programs.folder], core)
    return _answering(programs, name, port, pid)


def envoy(programs: Programs, core: int, upstream: int) -> Peer:
    binary = install.environment("proxies", install.PROXIES) / "envoy"
    port = free_port()
    config = programs.folder / "envoy.yaml"
    config.write_text(_ENVOY.format(types=_ENVOY_TYPES, port=port, upstream=upstream))
    options = ("--concurrency", 1, "--disable-hot-restart", "-l", "error")
    return _answering(
        programs, "envoy", port, programs.start("envoy", [binary, "-c", config, *options], core)
    )


def asyncio_proxy(programs: Programs, core: int, upstream: int) -> Peer:
    python = install.environment("proxies", install.PROXIES) / "python"
    port = free_port()
    pid = programs.start(
        "asyncio", [python, "-P", _HERE / "asyncio_proxy.py", port, upstream], core
    )
    return _answering(programs, "asyncio", port, pid)


def ray_serve(programs: Programs, proxy_core: int, load_core: int) -> Peer:
    """Its proxy alone on the proxy's core; replica, raylet and the rest where the load is."""
    python = install.environment("ray", install.RAY) / "python"
    port = free_port()
    environment = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_ENABLE_HA_PROXY": "0",
        "PYTHONWARNINGS": "ignore",
    }
    command = [python, "-P", _HERE / "ray_app.py", port, programs.folder / "ray"]
    pid = programs.start("ray", command, load_core, environment)
    programs.wait(
        "ray", _RAY_SECONDS, "was not up", lambda: "ready" in programs.last_words("ray").split()
    )
    proxies = tuple(
        process.pid for process in family(pid) if "ProxyActor" in " ".join(process.cmdline())
    )
    if not proxies:
        raise BenchError("Ray Serve runs, but no proxy of it was found")
    for proxy in proxies:
        pin(proxy, proxy_core)
    return port, proxies


def versions() -> dict[str, str]:
    """What was measured against, by name; what cannot be told is left out."""
    found = {"HAProxy": _said([find_binary(), "-v"], "version ")}
    with contextlib.suppress(BenchError):
        found["nginx"] = _said([install.program("nginx", "nginx"), "-v"], "nginx/")
    for package in (*install.PROXIES, *install.RAY):
        name, _, version = package.partition("==")
        found[name] = version
    return {name: version for name, version in found.items() if version}


def _said(command: list[object], before: str) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, timeout=10
    )
    said = (done.stdout + done.stderr).partition(before)[2].split(None, 1)
    return said[0].partition("-")[0] if said else ""


def _answering(programs: Programs, name: str, port: int, pid: int) -> Peer:
    programs.answering(name, port)
    return port, tuple(process.pid for process in family(pid))


def _haproxy(programs: Programs, name: str, text: str, core: int) -> int:
    config = programs.folder / f"{name}.cfg"
    config.write_text(text)
    return programs.start(name, [find_binary(), "-db", "-f", config], core)

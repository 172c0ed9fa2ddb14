# registry, dispatcher, notifier, ctingress, downloads and eventproc-admin. README.md beside this file says how to build and run it.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ARG LISTS=requirements/stations.txt
COPY requirements/ /build/requirements/
COPY deploy/images/sitecustomize.py deploy/images/eventproc-admin /build/
# the stations are found from every folder; packages' own tests are left out
RUN python -m venv --without-pip /opt/venv \
 && cd /build && for list in $LISTS; do \
      python -m pip --python /opt/venv/bin/python install --no-cache-dir --no-input --disable-pip-version-check --progress-bar off \
        --only-binary :all: --no-deps --require-hashes -r "$list" || exit 1; \
    done \
 && site=$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
 && find "$site" -type d -name tests -prune -exec rm -rf {} + \
 && echo /opt/eventproc > "$site/eventproc.pth" && cp /build/sitecustomize.py "$site/" && /opt/venv/bin/python -m compileall -q "$site/sitecustomize.py" \
 && install -m 755 /build/eventproc-admin /opt/venv/bin/ && chmod -R go=u,go-w /opt
COPY schemas/ /opt/eventproc/schemas/
COPY telemetry/ /opt/eventproc/telemetry/
COPY faults/ /opt/eventproc/faults/
COPY callers/ /opt/eventproc/callers/
COPY objectstore/ /opt/eventproc/objectstore/
COPY stream/ /opt/eventproc/stream/
COPY ledger/ /opt/eventproc/ledger/
COPY registry/ /opt/eventproc/registry/
COPY dispatcher/ /opt/eventproc/dispatcher/
COPY notifier/ /opt/eventproc/notifier/
COPY ctingress/ /opt/eventproc/ctingress/
COPY downloads/ /opt/eventproc/downloads/
COPY admin/ /opt/eventproc/admin/
# compiled, for the root is read-only where it runs
RUN chmod -R go=u,go-w /opt/eventproc && /opt/venv/bin/python -m compileall -q /opt/eventproc

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 eventproc \
 && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /tmp --shell /usr/sbin/nologin eventproc \
 && install -d -o 10001 -g 10001 /var/lib/eventproc
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/eventproc /opt/eventproc
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    EVENTPROC_METRICS_HOST=0.0.0.0 \
    EVENTPROC_METRICS_PORT=9464
WORKDIR /opt/eventproc
USER 10001:10001
EXPOSE 4412 4413 4415 4416 9464
ENTRYPOINT ["python", "-m"]
CMD ["admin", "--help"]
# last: what differs with every commit makes no layer anew
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG VERSION=unreleased
ARG REVISION=unknown
LABEL org.opencontainers.image.title="eventproc" \
      org.opencontainers.image.description="Event processing for the PredictiveGrid platform: the stations beside the executor" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"

# The executor with one runtime of executor/runtimes/. README.md beside this file says how to build and run it.
#
# It is built on the runtime's Python, beside which the executor's own stands in /opt/python: both images need the same Debian.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG RUNTIME_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS control
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ARG LISTS=requirements/executor.txt
ENV PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_PROGRESS_BAR=off PIP_ONLY_BINARY=:all:
COPY requirements/ /build/requirements/
COPY deploy/images/sitecustomize.py /build/
RUN cp -a /usr/local /opt/python \
 && cd /opt/python && rm -rf include share lib/python3*/test lib/python3*/ensurepip lib/python3*/idlelib lib/python3*/site-packages/* \
 && python_own=$(ls -d /opt/python/bin/python3.[0-9]*[0-9]) && "$python_own" -m venv --without-pip /opt/venv \
 && cd /build && for list in $LISTS; do \
      python -m pip --python /opt/venv/bin/python install --no-deps --require-hashes -r "$list" || exit 1; \
    done \
 && site=$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
 && find "$site" -type d -name tests -prune -exec rm -rf {} + \
 && echo /opt/eventproc > "$site/eventproc.pth" && cp /build/sitecustomize.py "$site/" && /opt/venv/bin/python -m compileall -q "$site/sitecustomize.py" \
 && chmod -R go=u,go-w /opt
COPY client/ /build/client/
RUN python -m venv --without-pip /build/venv && cd /build \
 && python -m pip --python /build/venv/bin/python install --no-deps --require-hashes -r requirements/build.txt \
 && cd client && PIP_ONLY_BINARY= /build/venv/bin/python -c 'from setuptools.build_meta import build_wheel; build_wheel("/build")'
COPY schemas/ /opt/eventproc/schemas/
COPY telemetry/ /opt/eventproc/telemetry/
COPY faults/ /opt/eventproc/faults/
COPY objectstore/ /opt/eventproc/objectstore/
COPY stream/ /opt/eventproc/stream/
COPY executor/ /opt/eventproc/executor/
RUN chmod -R go=u,go-w /opt/eventproc && /opt/venv/bin/python -m compileall -q /opt/eventproc

FROM ${RUNTIME_IMAGE} AS runtime
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ARG RUNTIME=py3.11
ARG LIST=${RUNTIME}
ENV PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_PROGRESS_BAR=off
COPY executor/runtimes/${LIST}.txt /build/list.txt
# an interpreter's own pip may be too old to know today's wheels; it can fetch the newer one of the list. Packages' own tests are left out
RUN python3 -m venv /opt/${RUNTIME} && pip="/opt/${RUNTIME}/bin/python -m pip install --no-deps" \
 && sed -n '/^pip==/,/[^\\]$/p' /build/list.txt > /build/pip.txt \
 && $pip --only-binary :all: --require-hashes -r /build/pip.txt \
 && $pip --only-binary :all: --require-hashes -r /build/list.txt \
 && find /opt/${RUNTIME}/lib/python3*/site-packages -mindepth 2 -type d -name tests -prune -exec rm -rf {} + \
 && chmod -R go=u,go-w /opt/${RUNTIME}
COPY --from=control /build/*.whl /build/
RUN /opt/${RUNTIME}/bin/python -m pip install --no-deps /build/*.whl && chmod -R go=u,go-w /opt/${RUNTIME}

FROM ${RUNTIME_IMAGE}
ARG RUNTIME=py3.11
RUN groupadd --gid 10001 eventproc \
 && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /tmp --shell /usr/sbin/nologin eventproc \
 && install -d -o 10001 -g 10001 /var/lib/eventproc /scratch /packages
COPY --from=runtime /opt/${RUNTIME} /opt/${RUNTIME}
COPY --from=control /opt/python /opt/python
COPY --from=control /opt/venv /opt/venv
COPY --from=control /opt/eventproc /opt/eventproc
# an interpreter built with a shared library finds it in its new place; a Debian that does not fit shows here, not when it runs
RUN echo /opt/python/lib > /etc/ld.so.conf.d/eventproc.conf && ldconfig \
 && /opt/venv/bin/python -c 'import ctypes, ssl, executor.settings' && /opt/${RUNTIME}/bin/python -c 'import btrdb, dill, btrdbextras'
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    EVENTPROC_METRICS_HOST=0.0.0.0 \
    EVENTPROC_METRICS_PORT=9464 \
    EXECUTOR_RUNTIMES=${RUNTIME}=/opt/${RUNTIME}/bin/python \
    EXECUTOR_SCRATCH_DIR=/scratch \
    EXECUTOR_PACKAGES_DIR=/packages
WORKDIR /opt/eventproc
USER 10001:10001
EXPOSE 9464
ENTRYPOINT ["python", "-m"]
CMD ["executor"]
# last: what differs with every commit makes no layer anew
ARG RUNTIME_IMAGE=python:3.11-slim-bookworm
ARG VERSION=unreleased
ARG REVISION=unknown
LABEL org.opencontainers.image.title="eventproc-executor" \
      org.opencontainers.image.description="Event processing for the PredictiveGrid platform: the executor with the runtime ${RUNTIME}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${RUNTIME_IMAGE}"

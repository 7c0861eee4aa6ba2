# A tag may be moved to another image. `make pin-images` writes the digest of each behind it (TAG@sha256:…), here and in
# docker-compose.yml; run it again for a newer image of the same tag.
FROM python:3.13-slim-bookworm AS build

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# The environment gets no pip of its own: nothing is to be installed where the daemon runs.
RUN python -m venv --without-pip /opt/session-consumer
WORKDIR /src

# Dependencies first: they change less often than the code, and their layer is kept.
COPY requirements/run.txt requirements/
RUN pip --python /opt/session-consumer/bin/python install --require-hashes --only-binary :all: -r requirements/run.txt

COPY pyproject.toml README.md session_consumer.py ./
COPY consumer consumer
COPY schemas schemas
# Built with the pinned setuptools, which the daemon then does without. `check` fails when the pinned versions no longer
# are what pyproject.toml asks for.
RUN pip --python /opt/session-consumer/bin/python install --no-deps --no-build-isolation . \
    && pip --python /opt/session-consumer/bin/python uninstall --yes setuptools \
    && pip --python /opt/session-consumer/bin/python check


FROM python:3.13-slim-bookworm

# A volume that is mounted at /srv/data takes over this folder's owner.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /srv --shell /usr/sbin/nologin session-consumer \
    && install --directory --owner session-consumer --group session-consumer /srv/data
COPY --from=build /opt/session-consumer /opt/session-consumer

# SAFEPATH: no module is ever imported from the working directory.
ENV PATH=/opt/session-consumer/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1

# `data/voice.jsonl` in the settings is /srv/data/voice.jsonl here, and in a checkout the folder beside the code.
WORKDIR /srv
# As numbers: Kubernetes can then see that it is not root.
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM

# Asks at the address in the daemon's own settings: environment, settings file and --set.
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-I", "-m", "consumer.cli.healthcheck"]

ENTRYPOINT ["session-consumer"]
CMD ["run"]

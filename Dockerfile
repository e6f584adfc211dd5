# One image of the app: every engine, GPU and CPU.
#
#   docker build -t brainstem .
#
# Build arguments:
#   PIP_EXTRA_INDEX_URL  https://download.pytorch.org/whl/cpu leaves out CUDA, several gigabytes
#   MODELS               models to bake in beside the packaged one, such as "mars-nnunet mars-mdgru"
#   ACCEPT_LICENCE       "yes" accepts the licence of the published models
#   MODELS_URL           folder of the published files on a mirror of yours

# Debian brings a Python of its own that is among those tested, so the interpreter gets its security
# fixes from Debian, and the image needs nothing else of the system.
FROM debian:bookworm-slim AS base
# No versions here: Debian's archive keeps just the newest of a stable release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*

FROM base AS dependencies
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-pip \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY containers/install.sh containers/
COPY constraints.txt setup.cfg ./
ARG PIP_EXTRA_INDEX_URL=
RUN sh containers/install.sh dependencies

FROM dependencies AS app
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY bids_app bids_app
RUN sh containers/install.sh app
ARG MODELS=open
ARG ACCEPT_LICENCE=
ARG MODELS_URL=
RUN sh containers/install.sh models

# From the layer that changes least to the one that changes with each version of the app.
FROM base
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=app /opt/models /opt/models
COPY --from=app /opt/app /opt/app
ENV PATH=/opt/app/bin:/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    BRAINSTEM_MODELS_DIR=/opt/models
LABEL org.opencontainers.image.title="brainstem BIDS App" \
      org.opencontainers.image.description="Midbrain, pons and medulla on T1-weighted MRI, as a BIDS App" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0 AND CC-BY-4.0"
# Not root, where nobody says who: docs/install.md runs it as the user who calls.
USER 1001:1001
ENTRYPOINT ["bids_app"]

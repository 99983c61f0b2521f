# SPDX-License-Identifier: Apache-2.0
# Images of the operator and of the node agent: targets `operator` and `agent`. `make images` builds both.
#
# BASE has to bring a Python 3.11 and nothing else; BUILDER the same minor version of it with venv, since bytecode and
# binary wheels are of one. A release pins both by digest. Nothing of BUILDER is in an image, and no target platform is
# emulated: pip chooses wheels for TARGETARCH (amd64, arm64).
ARG BUILDER=docker.io/library/python:3.11-slim-bookworm
ARG BASE=gcr.io/distroless/python3-debian12

FROM --platform=$BUILDPLATFORM ${BUILDER} AS build
ARG BASE
ARG TARGETARCH
ARG VERSION
ARG SOURCE_DATE_EPOCH=0
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0 LC_ALL=C.UTF-8
WORKDIR /source
COPY requirements/operator.txt requirements/
RUN case "${TARGETARCH:-$(uname -m)}" in \
        amd64 | x86_64) cpu=x86_64 ;; \
        arm64 | aarch64) cpu=aarch64 ;; \
        *) echo "TARGETARCH is ${TARGETARCH:-$(uname -m)}; amd64 and arm64 are built" >&2; exit 1 ;; \
    esac; \
    python3 -m venv /venv && /venv/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --no-compile \
        --require-hashes --no-deps --only-binary :all: --implementation cp \
        --platform "manylinux_2_17_$cpu" --platform "manylinux2014_$cpu" --platform "manylinux_2_28_$cpu" \
        --target /site --report /report.json --requirement requirements/operator.txt
COPY . .
RUN for target in operator agent; do \
        python3 -m scripts.image_tree "$target" --version "${VERSION:?is missing: --build-arg VERSION=...}" \
            --base "$BASE" --arch "${TARGETARCH:-$(uname -m)}" --site /site --report /report.json \
            --out "/out/$target" || exit 1; \
    done

FROM ${BASE} AS agent
ARG VERSION
ARG REVISION=unknown
LABEL org.opencontainers.image.title="numa-migration-agent" \
      org.opencontainers.image.description="Sets the page-migration knobs of one node as its NodeMigrationState says" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /out/agent/ /
# Threads of Python take turns, so that one arena serves all (mallopt(3)): 0.15 to 0.2 MB less.
ENV PYTHONPATH=/opt/numamigration PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 MALLOC_ARENA_MAX=1
# Kernel files belong to uid 0; the pod takes every capability and privilege from it.
USER 0:0
ENTRYPOINT ["python3", "-m", "numamigration_agent"]

FROM ${BASE} AS operator
ARG VERSION
ARG REVISION=unknown
LABEL org.opencontainers.image.title="numa-migration-operator" \
      org.opencontainers.image.description="Turns MigrationPolicy objects into node states, and reports into status" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /out/operator/ /
# HOME: libraries look below it, and not every base image knows a user 65532.
ENV PYTHONPATH=/opt/numamigration PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 HOME=/
USER 65532:65532
ENTRYPOINT ["python3", "-m", "numamigration_operator"]

# SPDX-License-Identifier: Apache-2.0
# The two images as long as there is no other Dockerfile: interpreter and our packages, with the same targets.
ARG BASE=localhost/python:bookworm

FROM ${BASE} AS agent
COPY crds/numamigration_api /opt/numamigration/numamigration_api
COPY node-agent/numamigration_agent /opt/numamigration/numamigration_agent
ENV PYTHONPATH=/opt/numamigration PYTHONDONTWRITEBYTECODE=1
ENTRYPOINT ["python3", "-m", "numamigration_agent"]

FROM ${BASE} AS operator
COPY requirements/operator.txt /tmp/operator.txt
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --quiet --no-cache-dir --require-hashes --no-deps --only-binary :all: -r /tmp/operator.txt \
    && rm /tmp/operator.txt
COPY crds/numamigration_api /opt/numamigration/numamigration_api
COPY operator/numamigration_operator /opt/numamigration/numamigration_operator
RUN printf '#!/bin/sh\nexec /opt/venv/bin/python -m numamigration_operator "$@"\n' >/usr/local/bin/numamigration-operator \
    && chmod 0755 /usr/local/bin/numamigration-operator
ENV PYTHONPATH=/opt/numamigration PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
ENTRYPOINT ["numamigration-operator"]

# SPDX-License-Identifier: Apache-2.0
"""Pure decisions: events and the time go in, plain data comes out. No I/O, no clock, no kopf, no Kubernetes client."""

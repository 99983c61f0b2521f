# SPDX-License-Identifier: Apache-2.0
"""Operators, agents and an API server in one thread, on one seeded clock: docs/simulation.md."""

# SPDX-License-Identifier: Apache-2.0
"""Fixtures for every ring of tests; none of them starts anything before a test asks for it."""

pytest_plugins = ("tests.counting", "tests.testbed.fixtures")

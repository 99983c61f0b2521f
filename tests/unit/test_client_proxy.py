# SPDX-License-Identifier: Apache-2.0
"""Through which proxy the operator reaches its API server."""

from __future__ import annotations

import pytest

from numamigration_operator.cluster.client import environment_proxy

SERVER = "https://10.96.0.1:6443"
PROXY = "http://proxy.example:3128"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def test_an_api_server_is_reached_directly_where_the_environment_names_no_proxy() -> None:
    assert environment_proxy(SERVER) is None


def test_the_environment_names_the_proxy_of_an_api_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", PROXY)

    assert environment_proxy(SERVER) == PROXY


def test_an_api_server_that_the_environment_excepts_is_reached_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", "10.96.0.1")

    assert environment_proxy(SERVER) is None

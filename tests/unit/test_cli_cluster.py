# SPDX-License-Identifier: Apache-2.0
"""What the plugin says of answers that are none it hoped for."""

from __future__ import annotations

import pytest

from numamigration_cli.cluster import checked, decode, one
from numamigration_cli.exits import Exit, Failure
from numamigration_cli.objects import POLICIES, PROFILES, Named
from numamigration_operator.cluster.client import Response


def status(code: int, message: str = "") -> Response:
    return Response(code, f'{{"kind":"Status","message":"{message}"}}'.encode())


@pytest.mark.parametrize(
    ("answer", "path", "code"),
    [
        pytest.param(status(401), POLICIES, Exit.NO_RIGHTS, id="not logged in"),
        pytest.param(status(403, "user x cannot list"), POLICIES, Exit.NO_RIGHTS, id="no rights"),
        pytest.param(status(404), POLICIES, Exit.NOT_INSTALLED, id="no CRD"),
        pytest.param(Response(404, b"404 page not found\n"), POLICIES, Exit.NOT_INSTALLED, id="no such API group"),
        pytest.param(status(404), "/api/v1/namespaces/x/configmaps/y", Exit.FAILED, id="no namespace"),
        pytest.param(status(409), POLICIES, Exit.FAILED, id="conflict"),
        pytest.param(status(500), POLICIES, Exit.FAILED, id="its own fault"),
        pytest.param(Response(502, b"<html>bad gateway"), POLICIES, Exit.FAILED, id="a proxy's page"),
    ],
)
def test_a_refusal_has_the_exit_code_of_its_kind(answer: Response, path: str, code: Exit) -> None:
    with pytest.raises(Failure) as caught:
        checked(answer, path)

    assert caught.value.code is code


def test_a_missing_profile_kind_is_not_said_of_all_kinds() -> None:
    with pytest.raises(Failure, match=r"does not know MigrationProfile: .* older") as caught:
        checked(status(404), PROFILES)

    assert caught.value.code is Exit.NOT_INSTALLED


def test_what_the_server_says_is_passed_on() -> None:
    with pytest.raises(Failure, match="user x cannot list"):
        checked(status(403, "user x cannot list"), POLICIES)


@pytest.mark.parametrize("name", [".", "..", "a/b", "%2e%2e"])
def test_a_name_that_would_be_another_path_is_refused(name: str) -> None:
    with pytest.raises(Failure):
        one(POLICIES, name)


def test_other_odd_characters_are_of_the_name() -> None:
    assert one(POLICIES, "a?b c#d") == f"{POLICIES}/a%3Fb%20c%23d"


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"[1]", b'{"metadata": 5}'])
def test_a_body_that_is_no_object_is_an_error_in_words(body: bytes) -> None:
    with pytest.raises(Failure):
        decode(body, Named)

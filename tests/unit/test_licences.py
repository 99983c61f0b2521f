# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from importlib import metadata
from typing import cast

import pytest

from scripts.licences import is_allowed, licence_of, locked, shipped


def package(text: str) -> metadata.PackageMetadata:
    from email import message_from_string

    return cast("metadata.PackageMetadata", message_from_string(text))


def test_everything_that_is_shipped_has_a_licence_that_may_be() -> None:
    assert [one for one in shipped() if not is_allowed(one.licence)] == []


def test_what_is_installed_here_is_what_the_operators_lock_has() -> None:
    assert [one.version for one in shipped()] == list(locked().values())


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        pytest.param("License-Expression: MIT AND PSF-2.0\nLicense: other\n", "MIT AND PSF-2.0", id="expression first"),
        pytest.param("License: Apache 2.0\n", "Apache-2.0", id="old spelling"),
        pytest.param("License: ISC\nClassifier: License :: OSI Approved :: BSD License\n", "ISC", id="old field"),
        pytest.param("Classifier: License :: OSI Approved :: MIT License\n", "MIT", id="classifier"),
        pytest.param("License: do what you want\n", "", id="unknown"),
        pytest.param("Name: x\n", "", id="nothing"),
    ],
)
def test_a_licence_is_what_a_package_says_in_the_newest_way(text: str, licence: str) -> None:
    assert licence_of(package(text)) == licence


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        pytest.param("MIT", True, id="one"),
        pytest.param("Apache-2.0 AND MIT", True, id="both allowed"),
        pytest.param("MIT AND GPL-3.0-only", False, id="one of both not"),
        pytest.param("MIT OR GPL-3.0-only", True, id="a choice"),
        pytest.param("(GPL-3.0-only OR MIT) AND ISC", True, id="a choice and another"),
        pytest.param("GPL-3.0-only", False, id="not allowed"),
        pytest.param("", False, id="none"),
    ],
)
def test_all_parts_of_an_expression_must_be_allowed(expression: str, allowed: bool) -> None:
    assert is_allowed(expression) is allowed

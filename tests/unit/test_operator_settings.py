# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from numamigration_operator import settings as module
from numamigration_operator.__main__ import main
from numamigration_operator.settings import OperatorSettings, SettingsError, read_settings, unknown_variables


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OperatorSettings.model_fields:
        monkeypatch.delenv(module.variable(name), raising=False)


def test_a_flag_beats_the_environment_and_that_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings([]).apply_burst == 100
    monkeypatch.setenv("NUMAMIGRATION_APPLY_BURST", "200")
    assert read_settings([]).apply_burst == 200
    assert read_settings(["--apply-burst", "300"]).apply_burst == 300


def test_an_empty_environment_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMAMIGRATION_CONTEXT", "")

    assert read_settings([]).context is None


@pytest.mark.parametrize(
    ("name", "value", "legal"),
    [
        pytest.param("apply_burst", "x", "a whole number from 1 to 10000", id="no number"),
        pytest.param("apply_burst", "0", "a whole number from 1 to 10000", id="below"),
        pytest.param("apply_burst", "10001", "a whole number from 1 to 10000", id="above"),
        pytest.param("apply_rate_per_second", "nan", "a number from 1.0 to 5000.0", id="not a number"),
        pytest.param("apply_rate_per_second", "inf", "a number from 1.0 to 5000.0", id="infinite"),
        pytest.param("log_level", "loud", "one of debug, info, warning, error", id="no level"),
        pytest.param("log_format", "xml", "one of text, json", id="no format"),
        pytest.param("agent_node_selector", "a in", "a label selector as kubectl takes it", id="no selector"),
        pytest.param("lease_duration_seconds", "301", "a whole number from 1 to 300", id="lease too long"),
        pytest.param("lease_renew_deadline_seconds", "15", "0.5 to 300, below lease_duration_seconds", id="no margin"),
        pytest.param("lease_retry_seconds", "9", "1.2 times it below lease_renew_deadline_seconds", id="one try only"),
        pytest.param("health_address", "8081", "host:port", id="no host"),
        pytest.param("health_address", "localhost:0", "host:port", id="port 0"),
        pytest.param("health_address", "localhost:65536", "host:port", id="port past the end"),
        pytest.param("fence_required", "perhaps", "true or false", id="neither true nor false"),
        pytest.param("kubeconfig", "/nowhere/config", "path of an existing file", id="no file"),
    ],
)
@pytest.mark.parametrize("by_flag", [True, False], ids=["flag", "environment"])
def test_a_broken_value_is_one_line_that_says_what_is_legal(
    name: str,
    value: str,
    legal: str,
    by_flag: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [module.flag(name), value] if by_flag else []
    if not by_flag:
        monkeypatch.setenv(module.variable(name), value)

    assert main(arguments) == 2

    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert text.startswith(f"numamigration-operator: {name}: '{value}' from ")
    assert (module.flag(name) if by_flag else module.variable(name)) in text
    assert legal in text


@pytest.mark.parametrize(
    "arguments", [["--apply-bur", "3"], ["--nonsense"], ["stray"], ["--context"]], ids=lambda a: str(a[0])
)
def test_a_flag_that_does_not_exist_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2

    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert arguments[0] in text


def test_help_fits_80_columns_and_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        read_settings(["--help"])

    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert all(module.flag(name) in text for name in OperatorSettings.model_fields)


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        read_settings(["--version"])

    assert capsys.readouterr().out.startswith("numamigration-operator 0.")


def test_every_setting_is_documented() -> None:
    assert list(module.undocumented()) == []


def test_an_undocumented_setting_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    info = OperatorSettings.model_fields["apply_burst"]
    monkeypatch.setattr(info, "description", "Requests that may be sent at once.\n\nDefault: 99.")

    assert list(module.undocumented()) == [
        "apply_burst: its docstring lacks 'Unit: '",
        "apply_burst: its docstring lacks 'Default: 100'",
    ]
    assert module.main(["--markdown"]) == 1


def test_a_stale_document_is_found(tmp_path: Path) -> None:
    document = tmp_path / "settings.md"
    document.write_text(module.markdown())
    assert module.main(["--markdown", "--check", str(document)]) == 0

    document.write_text(module.markdown().replace("100", "99"))
    assert module.main(["--markdown", "--check", str(document)]) == 1


def test_a_misspelt_variable_is_named() -> None:
    found = unknown_variables({"NUMAMIGRATION_APPLY_BRUST": "3", "NUMAMIGRATION_APPLY_BURST": "3", "PATH": "/bin"})

    assert found == ["NUMAMIGRATION_APPLY_BRUST"]


def test_all_broken_settings_are_named_at_once() -> None:
    with pytest.raises(SettingsError, match=r"log_level: .*; apply_burst: "):
        read_settings(["--apply-burst", "x", "--log-level", "loud"])


def test_the_defaults_of_the_others_count_when_one_duration_is_given() -> None:
    """A lease of 5 s with the default deadline of 10 s would let two operators act."""
    with pytest.raises(SettingsError, match=r"lease_renew_deadline_seconds: '10\.0'"):
        read_settings(["--lease-duration-seconds", "5"])


def test_two_processes_of_one_name_have_two_identities() -> None:
    settings = read_settings(["--lease-identity", "same"])

    assert settings.identity != settings.identity
    assert settings.identity.startswith("same_")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("0.0.0.0:8081", ("0.0.0.0", 8081), id="IPv4"),
        pytest.param("[::]:8081", ("::", 8081), id="IPv6"),
        pytest.param("localhost:65535", ("localhost", 65535), id="name, highest port"),
    ],
)
def test_an_address_is_read(text: str, expected: tuple[str, int]) -> None:
    assert module.parse_address(text) == expected

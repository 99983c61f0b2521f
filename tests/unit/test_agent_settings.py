# SPDX-License-Identifier: Apache-2.0
"""Settings of the agent: where a value comes from, what is refused and in which words, and the generated document."""

from __future__ import annotations

import pytest

from numamigration_agent.settings import SETTINGS, AgentSettings, SettingsError, parse_settings
from numamigration_api.machinery.logs import LogFormat, LogLevel
from scripts.agent_settings import page

IN_CLUSTER = {"NODE_NAME": "node-a", "KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def test_a_pod_needs_nothing_but_its_node_name() -> None:
    assert parse_settings([], IN_CLUSTER) == AgentSettings(
        node_name="node-a",
        host_root="/",
        state_dir="/run/numamigration-agent",
        api_server="https://10.96.0.1:443",
        ca_file="/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
        token_file="/var/run/secrets/kubernetes.io/serviceaccount/token",
        log_format=LogFormat.TEXT,
        log_level=LogLevel.INFO,
        report_interval_seconds_min=300.0,
        report_interval_seconds_max=600.0,
        start_jitter_seconds_max=30.0,
        drift_check_seconds=15.0,
        statistics_window_seconds=15.0,
        batch_ceiling_pages=0,
        health_address=None,
    )


def test_the_table_has_exactly_the_fields_of_the_settings() -> None:
    assert [row.name for row in SETTINGS] == list(AgentSettings.__slots__)


def test_every_default_in_the_table_is_legal() -> None:
    parsed = {row.name: row.kind.parse(str(row.default)) for row in SETTINGS if row.default is not None}

    assert {row.name for row in SETTINGS} - parsed.keys() == {"node_name", "api_server"}


@pytest.mark.parametrize(
    ("arguments", "environ", "expected"),
    [
        pytest.param([], {}, 15.0, id="default"),
        pytest.param([], {"NUMAMIGRATION_AGENT_DRIFT_CHECK_SECONDS": "20"}, 20.0, id="environment beats default"),
        pytest.param(
            ["--drift-check-seconds", "2.5"],
            {"NUMAMIGRATION_AGENT_DRIFT_CHECK_SECONDS": "20"},
            2.5,
            id="flag beats environment",
        ),
        pytest.param([], {"NUMAMIGRATION_AGENT_DRIFT_CHECK_SECONDS": ""}, 15.0, id="empty variable counts as absent"),
    ],
)
def test_a_flag_beats_the_environment_beats_the_default(
    arguments: list[str], environ: dict[str, str], expected: float
) -> None:
    assert parse_settings(arguments, IN_CLUSTER | environ).drift_check_seconds == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        pytest.param({"NODE_NAME": "node-a"}, "node-a", id="NODE_NAME alone"),
        pytest.param({"NODE_NAME": "node-a", "NUMAMIGRATION_AGENT_NODE_NAME": "b"}, "b", id="our own variable wins"),
    ],
)
def test_the_node_name_comes_from_the_pods_environment(environ: dict[str, str], expected: str) -> None:
    assert parse_settings(["--api-server=https://api"], environ).node_name == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        pytest.param({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "https://10.0.0.1:443", id="port left out"),
        pytest.param(
            {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"},
            "https://[fd00::1]:6443",
            id="IPv6",
        ),
    ],
)
def test_the_api_server_comes_from_the_pods_environment(environ: dict[str, str], expected: str) -> None:
    assert parse_settings(["--node-name=a"], environ).api_server == expected


@pytest.mark.parametrize(
    ("arguments", "environ", "words"),
    [
        pytest.param(["--node-name=Node_A"], {}, ["node_name", "'Node_A'", "--node-name", "lower-case"], id="name"),
        pytest.param(["--node-name=a/../b"], {}, ["node_name", "'a/../b'"], id="a node name is no path"),
        pytest.param(["--node-name=" + "a" * 254], {}, ["node_name", "253"], id="name one too long"),
        pytest.param(["--node-name="], {}, ["node_name", "''"], id="an empty flag is a mistake"),
        pytest.param(["--host-root=host"], {}, ["host_root", "'host'", "absolute path"], id="relative path"),
        pytest.param(["--api-server=http://10.0.0.1"], {}, ["api_server", "https://HOST"], id="no plain HTTP"),
        pytest.param(["--api-server=https://a/api"], {}, ["api_server", "without path"], id="URL with path"),
        pytest.param(["--api-server=https://u:p@a"], {}, ["api_server"], id="URL with user"),
        pytest.param(["--api-server=https://a:99999"], {}, ["api_server"], id="port out of range"),
        pytest.param(["--api-server=https://"], {}, ["api_server"], id="URL without host"),
        pytest.param(["--log-format=xml"], {}, ["log_format", "'xml'", "text or json"], id="log format"),
        pytest.param(
            [], {"NUMAMIGRATION_AGENT_LOG_LEVEL": "loud"}, ["log_level", "'loud'", "AGENT_LOG_LEVEL"], id="environment"
        ),
        pytest.param(["--drift-check-seconds=0"], {}, ["drift_check_seconds", "0.1 to 3600"], id="below the bound"),
        pytest.param(["--drift-check-seconds=3600.1"], {}, ["drift_check_seconds", "3600"], id="above the bound"),
        pytest.param(["--drift-check-seconds=nan"], {}, ["drift_check_seconds", "'nan'"], id="not a number"),
        pytest.param(["--drift-check-seconds=15s"], {}, ["drift_check_seconds", "'15s'"], id="unit in the value"),
        pytest.param(["--drift-check-seconds=-1"], {}, ["drift_check_seconds"], id="negative"),
        pytest.param(["--report-interval-seconds-max=601"], {}, ["report_interval_seconds_max", "600"], id="deadline"),
        pytest.param(
            ["--report-interval-seconds-min=400", "--report-interval-seconds-max=399"],
            {},
            ["report_interval_seconds_min is 400", "report_interval_seconds_max 399"],
            id="shortest above longest",
        ),
        pytest.param(["--health-address=8082"], {}, ["health_address", "0.0.0.0:8082"], id="no host"),
        pytest.param(["--health-address=0.0.0.0:65536"], {}, ["health_address"], id="port past the end"),
        pytest.param(["--health-address=node-a:8082"], {}, ["health_address", "IP:PORT"], id="a host that is a name"),
        pytest.param(["--colour=red"], {}, ["--colour=red", "--help"], id="unknown flag"),
        pytest.param(["--drift-check=1"], {}, ["--drift-check=1"], id="a flag is not abbreviated"),
        pytest.param(["--log-level"], {}, ["--log-level", "expected one argument"], id="flag without value"),
        pytest.param([], {"KUBERNETES_SERVICE_PORT": "x"}, ["api_server", "KUBERNETES_SERVICE_HOST"], id="broken port"),
    ],
)
def test_a_broken_value_is_one_line_that_says_what_is_legal(
    arguments: list[str], environ: dict[str, str], words: list[str]
) -> None:
    """Promise 14, as to the node name: it is no path, whoever sets it."""
    with pytest.raises(SettingsError) as caught:
        parse_settings(arguments, IN_CLUSTER | environ)

    assert "\n" not in str(caught.value)
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        pytest.param("NODE_NAME", ["node_name is not set", "--node-name", "NUMAMIGRATION_AGENT_NODE_NAME"], id="node"),
        pytest.param("KUBERNETES_SERVICE_HOST", ["api_server is not set", "--api-server"], id="API server"),
    ],
)
def test_a_missing_setting_says_how_to_give_it(missing: str, words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings([], {name: value for name, value in IN_CLUSTER.items() if name != missing})

    assert [word for word in words if word not in str(caught.value)] == []


def test_help_names_every_setting_within_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_settings(["--help"], {})

    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert [row.flag for row in SETTINGS if f"\n  {row.flag} VALUE\n" not in text] == []
    assert [line for line in text.splitlines() if len(line) > 80] == []


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_settings(["--version"], {})

    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("numamigration-agent 0.")


def test_the_document_tells_flag_variable_default_and_bounds_of_every_setting() -> None:
    text = page()

    for row in SETTINGS:
        section = text.split(f"\n## {row.name}\n")[1].split("\n## ")[0]
        assert row.meaning in section
        assert row.flag in section
        assert row.variable in section
        assert row.kind.legal in section
        assert row.default_text in section


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", None, id="nothing"),
        pytest.param("0.0.0.0:8082", ("0.0.0.0", 8082), id="IPv4"),
        pytest.param("[::]:8082", ("::", 8082), id="IPv6"),
    ],
)
def test_the_health_address_is_an_ip_and_a_port(text: str, expected: tuple[str, int] | None) -> None:
    assert parse_settings([], IN_CLUSTER | {"NUMAMIGRATION_AGENT_HEALTH_ADDRESS": text}).health_address == expected

# SPDX-License-Identifier: Apache-2.0
"""Settings of the node agent: one table, from which flags, environment, ``--help`` and docs/settings-agent.md come.

A flag beats the environment, the environment beats the default. An empty environment variable counts as absent, since
manifests often carry ``value: ""``; an empty flag is a mistake. A broken value is one line: setting, value, what is
legal. Files are not looked at here: a token that is not mounted yet is waited for, not fatal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from numamigration_agent import __version__
from numamigration_agent.http1 import PORT_MAX, parse_server
from numamigration_api.machinery.logs import LogFormat, LogLevel
from numamigration_api.machinery.quantities import DECIMAL_PATTERN
from numamigration_api.machinery.records import dataclass

if TYPE_CHECKING:
    import argparse

PROGRAM: Final = "numamigration-agent"
ENVIRONMENT_PREFIX: Final = "NUMAMIGRATION_AGENT_"
HELP_COLUMNS: Final = 80
REPORT_SECONDS_MAX: Final = 600.0  # rollout.nodeDeadlineSeconds of a policy is at least 660 and must exceed this
BATCH_CEILING_PAGES_MAX: Final = 1 << 18  # HPAGE_PUD_NR, the largest that any posting has
CREDENTIALS: Final = "/var/run/secrets/kubernetes.io/serviceaccount"

_NODE_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NODE_NAME_LENGTH_MAX: Final = 253
_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:]+)\]|([0-9]{1,3}(?:\.[0-9]{1,3}){3})):([0-9]{1,5})")


class SettingsError(Exception):
    """A setting is missing or broken; the text is one line for the person who set it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """Checked settings; what each means stands in ``SETTINGS``."""

    node_name: str
    host_root: str
    state_dir: str
    api_server: str
    ca_file: str
    token_file: str
    log_format: LogFormat
    log_level: LogLevel
    report_interval_seconds_min: float
    report_interval_seconds_max: float
    start_jitter_seconds_max: float
    drift_check_seconds: float
    statistics_window_seconds: float
    batch_ceiling_pages: int
    health_address: tuple[str, int] | None


class Kind(NamedTuple):
    """How a text becomes a value; `parse` raises ValueError for what is not `legal`."""

    parse: Callable[[str], Any]
    legal: str


class Setting(NamedTuple):
    """One row of the table.

    Attributes:
        name: field of AgentSettings; flag and environment variable follow from it.
        kind: what is legal.
        meaning: what it is.
        effect: what more or less of it does.
        default: as text; None means that the environment of the pod or a person must say it.
        unit: of numbers.
        fallback: further environment variables that stand in for the default, as people write them.
    """

    name: str
    kind: Kind
    meaning: str
    effect: str
    default: str | None = None
    unit: str = ""
    fallback: str = ""

    @property
    def flag(self) -> str:
        """The command-line flag."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return ENVIRONMENT_PREFIX + self.name.upper()

    @property
    def default_text(self) -> str:
        """The default as people read it."""
        return f"from {self.fallback}" if self.default is None else self.default or "empty"


def _node_name(text: str) -> str:
    if len(text) > _NODE_NAME_LENGTH_MAX or _NODE_NAME.fullmatch(text) is None:
        raise ValueError(text)
    return text


def _absolute_path(text: str) -> str:
    if not text.startswith("/") or "\0" in text:
        raise ValueError(text)
    return text


def _https_url(text: str) -> str:
    # The bearer token goes over this connection, so there is no plain HTTP, not even for a trial.
    parse_server(text)
    return text.rstrip("/")


def _seconds(least: float, most: float) -> Kind:
    def parse(text: str) -> float:
        if re.fullmatch(DECIMAL_PATTERN, text) is None or not least <= float(text) <= most:
            raise ValueError(text)
        return float(text)

    return Kind(parse, f"a decimal number from {least:g} to {most:g}")


def _count(most: int) -> Kind:
    def parse(text: str) -> int:
        if re.fullmatch("0|[1-9][0-9]{0,8}", text) is None or int(text) > most:
            raise ValueError(text)
        return int(text)

    return Kind(parse, f"a whole number from 0 to {most}")


def _address(text: str) -> tuple[str, int] | None:
    if not text:
        return None
    match = _ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match[3]) <= PORT_MAX:
        raise ValueError(text)
    return match[1] or match[2], int(match[3])


def _one_of(enum: type[StrEnum]) -> Kind:
    return Kind(enum, " or ".join(enum))


NODE_NAME: Final = Kind(_node_name, "a Kubernetes node name: lower-case letters, digits, '-' and '.', up to 253")
ABSOLUTE_PATH: Final = Kind(_absolute_path, "an absolute path")
ADDRESS: Final = Kind(_address, "IP:PORT, for example 0.0.0.0:8082 or [::]:8082, or nothing")
HTTPS_URL: Final = Kind(_https_url, "https://HOST or https://HOST:PORT, without path, user or query")

SETTINGS: Final = (
    Setting(
        "node_name",
        NODE_NAME,
        "Name of the Kubernetes node that this agent runs on.",
        "The agent watches and reports the NodeMigrationState of this name and no other.",
        fallback="NODE_NAME (set it from spec.nodeName)",
    ),
    Setting(
        "host_root",
        ABSOLUTE_PATH,
        "Folder under which the host's /sys and /proc are found.",
        "In a pod it is where they are mounted; kernel files are opened below it and nowhere else.",
        default="/",
    ),
    Setting(
        "state_dir",
        ABSOLUTE_PATH,
        "Folder for the baseline: the values from before the first write.",
        "Put it on the host's tmpfs, so that it outlives the pod and not the boot; without it nothing is written.",
        default="/run/numamigration-agent",
    ),
    Setting(
        "api_server",
        HTTPS_URL,
        "URL of the Kubernetes API server.",
        "Set it only outside of a pod, or to reach another address of the API server.",
        fallback="KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT",
    ),
    Setting(
        "ca_file",
        ABSOLUTE_PATH,
        "Certificates that the API server's certificate is checked against (PEM).",
        "The check cannot be turned off.",
        default=f"{CREDENTIALS}/ca.crt",
    ),
    Setting(
        "token_file",
        ABSOLUTE_PATH,
        "File with the agent's bearer token.",
        "It is read again for each request, since the kubelet replaces it about hourly.",
        default=f"{CREDENTIALS}/token",
    ),
    Setting(
        "log_format",
        _one_of(LogFormat),
        "How log lines look.",
        "text is for people, json for log collectors: one object a line.",
        default=LogFormat.TEXT,
    ),
    Setting(
        "log_level",
        _one_of(LogLevel),
        "The least severe log lines that are written.",
        "debug also shows each list, watch and write.",
        default=LogLevel.INFO,
    ),
    Setting(
        "report_interval_seconds_min",
        _seconds(1, REPORT_SECONDS_MAX),
        "Shortest time between two reports when nothing but counters changed.",
        "Shorter shows fresher numbers and costs the API server a write per node each time.",
        default="300",
        unit="seconds",
    ),
    Setting(
        "report_interval_seconds_max",
        _seconds(1, REPORT_SECONDS_MAX),
        "Longest time between two reports; each interval is drawn anew between the two.",
        "It must stay below rollout.nodeDeadlineSeconds of every policy, or nodes count as unreachable.",
        default="600",
        unit="seconds",
    ),
    Setting(
        "start_jitter_seconds_max",
        _seconds(0, 600),
        "Longest wait before the first request; the wait is drawn between 0 and this.",
        "Longer spreads the agents of a large fleet that start together; 0 starts at once.",
        default="30",
        unit="seconds",
    ),
    Setting(
        "drift_check_seconds",
        _seconds(0.1, 3600),
        "Time between two looks at the knobs, to find what somebody else changed.",
        "Shorter notices drift sooner and reads kernel files more often.",
        default="15",
        unit="seconds",
    ),
    Setting(
        "statistics_window_seconds",
        _seconds(0.1, 3600),
        "Window over which rates are measured, and time between two looks at the counters.",
        "Shorter follows bursts, longer smooths them; equal to drift_check_seconds, the agent wakes up once for both.",
        default="15",
        unit="seconds",
    ),
    Setting(
        "batch_ceiling_pages",
        _count(BATCH_CEILING_PAGES_MAX),
        "Pages per batch that the node's kernel was compiled for (NR_MAX_BATCHED_MIGRATION), for the status.",
        "No kernel file tells it and the agent reads no Node, so a person declares it, with one DaemonSet for each "
        "kernel where they differ; 0 declares nothing. Nothing else changes.",
        default="0",
        unit="base pages",
    ),
    Setting(
        "health_address",
        ADDRESS,
        "Where /healthz and /readyz are served over HTTP, for the probes of a pod, and /metrics for Prometheus.",
        "Empty serves nothing. Nothing there is secret, and nothing can be changed there. A probe must wait for 3 "
        "seconds or longer.",
        default="",
    ),
)


def parse_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> AgentSettings:
    """Return the settings of one run.

    Raises:
        SettingsError: something is missing, unknown or broken.
        SystemExit: ``--help`` or ``--version`` was asked for, and printed.
    """
    flags = _flags(arguments)
    settings = AgentSettings(**{row.name: _value(row, flags.get(row.name), environ) for row in SETTINGS})
    least, most = settings.report_interval_seconds_min, settings.report_interval_seconds_max
    if least > most:
        raise SettingsError(
            f"report_interval_seconds_min is {least:g} and report_interval_seconds_max {most:g}; "
            "the first must not be larger than the second"
        )
    return settings


def _value(row: Setting, flag: str | None, environ: Mapping[str, str]) -> Any:
    for text, origin in _origins(row, flag, environ):
        if text is None:
            continue
        try:
            return row.kind.parse(text)
        except ValueError:
            raise SettingsError(f"{row.name}: {text!r} ({origin}) is not legal; write {row.kind.legal}") from None
    raise SettingsError(f"{row.name} is not set; give {row.flag} or {row.variable}, or run with {row.fallback}")


def _origins(row: Setting, flag: str | None, environ: Mapping[str, str]) -> tuple[tuple[str | None, str], ...]:
    return (
        (flag, row.flag),
        (environ.get(row.variable) or None, row.variable),
        _FALLBACKS[row.name](environ) if row.name in _FALLBACKS else (row.default, "default"),
    )


def _node_name_fallback(environ: Mapping[str, str]) -> tuple[str | None, str]:
    return environ.get("NODE_NAME") or None, "NODE_NAME"


def _api_server_fallback(environ: Mapping[str, str]) -> tuple[str | None, str]:
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT") or "443"
    if not host:
        return None, ""
    url = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return url, "KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT"


_FALLBACKS: Final[Mapping[str, Callable[[Mapping[str, str]], tuple[str | None, str]]]] = {
    "node_name": _node_name_fallback,
    "api_server": _api_server_fallback,
}


def _flags(arguments: Sequence[str]) -> Mapping[str, str | None]:
    """Read ``--flag VALUE`` and ``--flag=VALUE``; whatever else there is, argparse answers.

    A plain start does without argparse, which is a megabyte for as long as the agent runs.
    """
    names = {row.flag: row.name for row in SETTINGS}
    found: dict[str, str | None] = {}
    words = iter(arguments)
    for word in words:
        flag, equals, value = word.partition("=")
        value = value if equals else next(words, "-")
        if flag not in names or value.startswith("-"):
            return vars(_parser().parse_args(arguments))
        found[names[flag]] = value
    return found


def _parser() -> argparse.ArgumentParser:
    import argparse

    class Parser(argparse.ArgumentParser):
        """argparse, with its mistakes as ours: one line, and the caller decides about exit codes."""

        def error(self, message: str) -> NoReturn:
            raise SettingsError(f"{message}; see {PROGRAM} --help")

    parser = Parser(
        prog=PROGRAM,
        usage="%(prog)s [--flag VALUE ...]",
        description="Sets the page-migration knobs of one node as its NodeMigrationState says, and reports.",
        epilog=f"Each flag can be set in the environment: --log-level as {ENVIRONMENT_PREFIX}LOG_LEVEL. A flag wins.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, width=HELP_COLUMNS - 1, max_help_position=8),
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    for row in SETTINGS:
        unit = f" Unit: {row.unit}." if row.unit else ""
        text = f"{row.meaning} {row.effect}{unit} Legal: {row.kind.legal}. Default: {row.default_text}."
        parser.add_argument(row.flag, metavar="VALUE", help=text.replace("%", "%%"))
    return parser

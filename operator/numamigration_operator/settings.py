# SPDX-License-Identifier: Apache-2.0
"""Operator settings: from flags, else from the environment, else defaults.

``--apply-burst 200`` beats ``NUMAMIGRATION_APPLY_BURST=200`` beats the default. A broken value ends the process with
exit code 2 and one line that names setting, origin, value and what is legal.

Flags, ``--help`` and docs/settings-operator.md are made from the fields below and their docstrings; a field without
unit, default and effect in its docstring fails ``make verify``:
``python -m numamigration_operator.settings --markdown [--check FILE]``.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Final, NoReturn, get_args

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from numamigration_api.machinery.logs import LogFormat, LogLevel
from numamigration_api.vocabulary import NAMESPACE_DEFAULT
from numamigration_operator import __version__
from numamigration_operator.cluster.lease import JITTER, LEASE_SECONDS_MAX
from numamigration_operator.core.objects import Selector
from numamigration_operator.label_selector import LEGAL as SELECTOR_LEGAL
from numamigration_operator.label_selector import parse_label_selector

PROGRAM: Final = "numamigration-operator"
PREFIX: Final = "NUMAMIGRATION_"
HELP_COLUMNS: Final = 80
EXIT_USAGE: Final = 2
NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
NAMESPACE_PATTERN: Final = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
"""RFC 1123 label, as the API server asks of namespaces."""
ROOM: Final = {
    "lease_renew_deadline_seconds": ("lease_duration_seconds", 1.0),
    "lease_retry_seconds": ("lease_renew_deadline_seconds", JITTER),
}
"""Which setting must be longer than which, and by what factor at least; as in client-go's leader election."""
LEGAL: Final = {
    "agent_node_selector": SELECTOR_LEGAL,
    "fence_required": "true or false",
    "health_address": "host:port, for example 0.0.0.0:8081 or [::]:8081, or empty",
    "lease_identity": "a name of at most 200 characters, or empty",
}
"""What settings take whose bounds do not say it."""


class OperatorSettings(BaseSettings):
    """Everything that can be set about the operator process."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        use_attribute_docstrings=True,
        frozen=True,
    )

    kubeconfig: Path | None = None
    """File that says where the API server is and who we are.

    Unit: path. Default: none, which means the pod's service account, or else KUBECONFIG or ~/.kube/config. For a run
    outside of the cluster; in a pod leave it out.
    """

    context: str | None = Field(default=None, min_length=1)
    """Context of the kubeconfig.

    Unit: name. Default: none, which means the kubeconfig's current context. Given without a kubeconfig, the service
    account of a pod is not used.
    """

    namespace: str | None = Field(default=None, pattern=NAMESPACE_PATTERN, max_length=63)
    """Namespace of the operator: there are the Lease of the one that leads and the ConfigMap of the fleet switch.

    Unit: name. Default: none, which means the namespace of the pod's service account, or else numamigration-system.
    All operators of a cluster must use the same one: its kinds are cluster-wide, so there is one leader in a cluster.
    """

    log_format: LogFormat = LogFormat.TEXT
    """How log lines look: text for people, json for log collectors.

    Unit: word. Default: text. Both have the same fields; neither holds secrets.
    """

    log_level: LogLevel = LogLevel.INFO
    """Log lines below this level are not written.

    Unit: word. Default: info. With debug every apply has a line: some 50 a second during a push.
    """

    agent_node_selector: str = ""
    """Nodes that have a node agent, as a label selector in kubectl's syntax.

    Unit: label selector. Default: empty, which means every node. The operator creates a node state for each of these
    nodes; it must be the node selector of the agents' DaemonSet. Not a way to restrict a policy: use its nodeSelector.
    """

    apply_requests_open_max: int = Field(default=8, ge=1, le=256)
    """Server-side apply requests open at the same time.

    Unit: requests. Default: 8. More shortens the push to a large fleet and takes more of the API server's
    concurrency; less is gentler. To stop pushing, set mode: Paused on the policy.
    """

    apply_rate_per_second: float = Field(default=50.0, ge=1.0, le=5000.0)
    """Server-side apply requests in the long run.

    Unit: requests per second. Default: 50.0. A push to 5,000 nodes takes 100 s at 50; the API server spends about 5 ms
    of CPU on each. Retry-After of the API server is obeyed whatever this says.
    """

    apply_burst: int = Field(default=100, ge=1, le=10000)
    """Server-side apply requests that may be sent at once after a pause.

    Unit: requests. Default: 100. Below it a push is not slowed down at all, so small fleets never wait.
    """

    status_interval_seconds: float = Field(default=5.0, ge=0.5, le=60.0)
    """Shortest time between two status writes of one policy.

    Unit: seconds. Default: 5.0. Less shows progress sooner and writes more often while nodes report.
    """

    statistics_interval_seconds: float = Field(default=60.0, ge=10.0, le=3600.0)
    """Shortest time between two status writes of one policy when only its statistics changed.

    Unit: seconds. Default: 60.0. Counters move all the time; less means that many more writes for ever.
    """

    policy_resync_seconds: float = Field(default=60.0, ge=1.0, le=3600.0)
    """Time between two complete lists of the policies.

    Unit: seconds. Default: 60.0. Changes come by watch within milliseconds; the list repairs a watch that died
    unnoticed. Less costs the API server one list of all policies each time.
    """

    restore_deadline_seconds: float = Field(default=600.0, ge=1.0, le=86400.0)
    """How long a deleted policy waits for its nodes to put the values of before back.

    Unit: seconds. Default: 600.0. After it the policy goes, and an Event names the nodes that did not confirm. More
    gives nodes that are down a chance to come back; the deletion waits for them that long.
    """

    circuit_breaker_percent: int = Field(default=20, ge=1, le=100)
    """Share of the nodes with agents that have failed, for whatever policy, at which the circuit breaker opens.

    Unit: percent. Default: 20. Then nothing is pushed by any policy but what turns offload off, releases or restores,
    until fewer have failed. Also see circuit_breaker_nodes_min.
    """

    circuit_breaker_nodes_min: int = Field(default=10, ge=1, le=100_000)
    """So many failed nodes it takes at least to open the circuit breaker.

    Unit: nodes. Default: 10. Less lets a few nodes of a small fleet stop all policies; those are the rollouts' own
    business.
    """

    fence_required: bool = True
    """Whether anything is turned on only while the node fence stands: the admission policy that keeps each agent to its
    own node state.

    Unit: true or false. Default: true. While the fence is missing, what turns offload off, releases or restores is
    still pushed, and every policy says FenceMissing. With false one stolen agent token can speak for every node: only
    for clusters that fence agents in another way.
    """

    lease_identity: str = Field(default="", max_length=200)
    """Who holds the Lease, for people who look at it.

    Unit: name. Default: empty, which means the host's name, in a pod the pod's. A random suffix is always added,
    so that no process takes the lease of another one, nor of its own former life, for its own.
    """

    lease_duration_seconds: int = Field(default=15, ge=1, le=LEASE_SECONDS_MAX)
    """How long other operators wait after the leader's last sign of life before one of them leads.

    Unit: seconds. Default: 15. Less continues sooner after a crash; more survives a longer pause of the API server.
    """

    lease_renew_deadline_seconds: float = Field(default=10.0, ge=0.5, le=LEASE_SECONDS_MAX)
    """How long the leader acts without having renewed the Lease; then its process ends.

    Unit: seconds. Default: 10.0. What lies between this and the lease's duration is the margin for clocks that do
    not run at quite the same speed and for requests that are under way.
    """

    lease_retry_seconds: float = Field(default=2.0, ge=0.1, le=60.0)
    """Time between two renewals of the leader, and between two looks of an operator that stands by.

    Unit: seconds. Default: 2.0. Each costs one small request. After a leader that stopped in good order the next one
    takes over within this time.
    """

    health_address: str = ""
    """Where /healthz, /readyz and /metrics are served over HTTP, as host:port.

    Unit: address. Default: empty, which serves nothing. For the probes of a pod use 0.0.0.0:8081 or [::]:8081; the
    answers of the checks are a line of plain text that says why; metrics name policies, never nodes (docs/metrics.md).
    Nothing there is secret, and nothing can be changed there.
    """

    @field_validator("kubeconfig")
    @classmethod
    def _exists(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError("no such file")
        return value

    @field_validator("agent_node_selector")
    @classmethod
    def _is_selector(cls, value: str) -> str:
        parse_label_selector(value)
        return value

    @field_validator("lease_renew_deadline_seconds", "lease_retry_seconds")
    @classmethod
    def _leaves_room(cls, value: float, info: ValidationInfo) -> float:
        longer, share = ROOM[info.field_name or ""]
        if longer in info.data and value * share >= info.data[longer]:
            raise ValueError(f"too long for {longer}")
        return value

    @field_validator("health_address")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if value:
            parse_address(value)
        return value

    @property
    def identity(self) -> str:
        """Return a new identity: `lease_identity`, or what it means when empty, with a random suffix."""
        return f"{self.lease_identity or own_name()}_{secrets.token_hex(4)}"

    @property
    def home_namespace(self) -> str:
        """Return `namespace`, or where this process runs."""
        if self.namespace is not None:
            return self.namespace
        return NAMESPACE_FILE.read_text().strip() if NAMESPACE_FILE.is_file() else NAMESPACE_DEFAULT

    @property
    def agent_nodes(self) -> Selector:
        """Return `agent_node_selector`, parsed."""
        return parse_label_selector(self.agent_node_selector)


def own_name() -> str:
    """Return the host's name, in a pod the pod's."""
    return os.environ.get("HOSTNAME") or socket.gethostname() or PROGRAM


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of ``host:port``; an IPv6 address stands in brackets.

    Raises:
        ValueError: it is not of this form.
    """
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]]+)):(\d{1,5})", text)
    if found is None or not 0 < int(found[3]) < 1 << 16:
        raise ValueError("no host:port")
    return found[1] or found[2], int(found[3])


class SettingsError(Exception):
    """A flag or an environment variable is wrong; the text is one line for people."""


def read_settings(arguments: Sequence[str]) -> OperatorSettings:
    """Return the settings of this process.

    Raises:
        SettingsError: a flag that does not exist, or a value that is not legal.
        SystemExit: ``--help`` or ``--version`` was asked for and answered.
    """
    return settings_from(_parser().parse_args(arguments))


def settings_from(options: argparse.Namespace) -> OperatorSettings:
    """Return the settings that these flags and the environment give; flags that are no settings are left out.

    Raises:
        SettingsError: a value that is not legal.
    """
    given = {name: value for name, value in vars(options).items() if value is not None}
    flags = {name: value for name, value in given.items() if name in OperatorSettings.model_fields}
    try:
        return OperatorSettings(**flags)
    except ValidationError as error:
        raise SettingsError(_explain(error, flags)) from error


class Parser(argparse.ArgumentParser):
    """A command line of this program: 80 columns, whole names of flags, errors in one line.

    Raises:
        SettingsError: from `parse_args`, on what is not legal.
    """

    def __init__(self, **more: Any) -> None:
        super().__init__(
            allow_abbrev=False,
            epilog=f"Each setting can also be given in the environment: --log-level is {PREFIX}LOG_LEVEL.",
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=6, width=HELP_COLUMNS),
            **more,
        )

    def error(self, message: str) -> NoReturn:
        """Say it as every wrong setting is said."""
        raise SettingsError(f"{message}; see {self.prog} --help")

    def add_settings(self, names: Iterable[str]) -> None:
        """Take these operator settings as flags."""
        for name in names:
            info = OperatorSettings.model_fields[name]
            help_text = f"{_paragraphs(info)[0]} Legal: {legal(name)}. Default: {default_text(info)}."
            self.add_argument(flag(name), metavar="VALUE", help=help_text.replace("%", "%%"))


def _parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [--help] [--version] [--SETTING VALUE ...]\n"
        f"       {PROGRAM} crds [--help] [--SETTING VALUE ...] {{apply,print}}\n"
        f"       {PROGRAM} selftest [--help] [--SETTING VALUE ...]\n"
        f"       {PROGRAM} uninstall [--help] [--SETTING VALUE ...]",
        description="Turns MigrationPolicy objects into node states, and their reports into policy status. "
        "crds installs the CRDs that it needs; selftest looks whether all works; uninstall puts the values of before "
        "back on every node.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    parser.add_settings(OperatorSettings.model_fields)
    return parser


def flag(name: str) -> str:
    """Return the flag of a setting."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper()


def legal(name: str) -> str:
    """Say what values a setting takes."""
    info = OperatorSettings.model_fields[name]
    kind = _kind(info)
    if name in LEGAL:
        return LEGAL[name]
    if issubclass(kind, (LogFormat, LogLevel)):
        return "one of " + ", ".join(kind)
    bounds = {key: value for entry in info.metadata for key in ("ge", "le") if (value := getattr(entry, key, None))}
    if bounds:
        number = "a whole number" if kind is int else "a number"
        return f"{number} from {bounds['ge']} to {bounds['le']}{_room(name)}"
    return "path of an existing file" if issubclass(kind, Path) else "a name"


def _room(name: str) -> str:
    if name not in ROOM:
        return ""
    longer, share = ROOM[name]
    return f", below {longer}" if share == 1 else f", {share:g} times it below {longer}"


def default_text(info: FieldInfo) -> str:
    """Return a default as documents and ``--help`` spell it."""
    if info.default is None:
        return "none"
    return str(info.default).lower() if isinstance(info.default, bool) else str(info.default) or "empty"


def undocumented() -> Iterator[str]:
    """Yield the settings whose docstring does not tell unit, default and effect, with what is missing."""
    for name, info in OperatorSettings.model_fields.items():
        text = " ".join(_paragraphs(info))
        for needed in ("Unit: ", f"Default: {default_text(info)}"):
            if needed not in text:
                yield f"{name}: its docstring lacks {needed!r}"


def markdown() -> str:
    """Return docs/settings-operator.md."""
    head = (
        "<!-- Generated by `make generate` from operator/numamigration_operator/settings.py; do not edit. -->\n"
        "# Operator settings\n\n"
        "A flag beats an environment variable, which beats the default. An empty environment variable counts as "
        "not set.\nA broken value ends the operator with exit code 2 and one line that says what is legal.\n"
    )
    return head + "".join(_section(name, info) for name, info in OperatorSettings.model_fields.items())


def _section(name: str, info: FieldInfo) -> str:
    summary, *rest = _paragraphs(info)
    return (
        f"\n## {name}\n\n{summary}\n\n"
        f"* flag `{flag(name)}`, environment `{variable(name)}`\n"
        f"* legal: {legal(name)}\n\n" + "\n\n".join(rest) + "\n"
    )


def _paragraphs(info: FieldInfo) -> list[str]:
    return [" ".join(part.split()) for part in (info.description or "").split("\n\n")]


def _kind(info: FieldInfo) -> type:
    kinds = get_args(info.annotation) or (info.annotation,)
    kind: type = next(kind for kind in kinds if kind is not NoneType)
    return kind


def _explain(error: ValidationError, flags: Mapping[str, Any]) -> str:
    return "; ".join(_explain_one(str(entry["loc"][0]), entry["input"], flags) for entry in error.errors())


def _explain_one(name: str, value: object, flags: Mapping[str, Any]) -> str:
    origin = flag(name) if name in flags else variable(name)
    return f"{name}: {str(value)!r} from {origin} is not legal; legal is {legal(name)}"


def unknown_variables(environment: Mapping[str, str] | None = None) -> list[str]:
    """Return environment variables with our prefix that are no settings, for example misspelt ones."""
    names = os.environ if environment is None else environment
    known = {variable(name) for name in OperatorSettings.model_fields}
    return sorted(name for name in names if name.startswith(PREFIX) and name not in known)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print or check the document; return the exit code."""
    from numamigration_operator.documents import print_or_check  # the operator itself needs none of it

    if missing := list(undocumented()):
        sys.stderr.write("\n".join(missing) + "\n")
        return 1
    return print_or_check("python -m numamigration_operator.settings", markdown, arguments)


if __name__ == "__main__":
    sys.exit(main())

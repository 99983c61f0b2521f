# SPDX-License-Identifier: Apache-2.0
"""Names that exist, each set from where it is defined, and words of others that documents may use beside them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from functools import cache
from inspect import getmembers, isclass
from pathlib import Path
from typing import Any, Final

import click
import yaml

from numamigration_agent import metrics as agent_metrics
from numamigration_agent import settings as agent
from numamigration_agent.kernel.dialects import COUNTERS, DIALECTS, KNOBS
from numamigration_agent.kernel.engines import DMA_DRIVERS
from numamigration_api import vocabulary as v
from numamigration_api.generate import all_crds
from numamigration_cli.app import program as plugin
from numamigration_operator import metrics
from numamigration_operator import settings as operator
from numamigration_operator.commands import COMMANDS
from scripts.metrics_documents import AGENT_LABELS
from scripts.traps import TRAPS

ROOT: Final = Path(__file__).resolve().parents[1]
CHART: Final = ROOT / "charts" / "numa-migration-operator"
ENUMS: Final = {enum for _, enum in getmembers(v, isclass) if issubclass(enum, StrEnum) and enum is not StrEnum}

Names = frozenset[str]


# --- the contract ----------------------------------------------------------------------------------------------------


def fields() -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yield (path, schema) of every field of both kinds; lists and maps are no steps of a path."""
    for crd in all_crds().values():
        yield from _fields((), crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])


def _fields(above: tuple[str, ...], schema: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    for name, inner in schema.get("properties", {}).items():
        yield (*above, name), inner
        for one in (inner, inner.get("items", {}), inner.get("additionalProperties", {})):
            yield from _fields((*above, name), one)


@cache
def field_paths() -> Names:
    """Return every field as people name it: with all that is above it, or with some of that, or alone."""
    return frozenset(".".join(path[start:]) for path, _ in fields() for start in range(len(path)))


@cache
def field_values() -> Mapping[str, Names]:
    """Return the legal words of each field that has a closed set of them, by its last name."""
    found: dict[str, set[str]] = {}
    for path, schema in fields():
        words = schema.get("enum") or schema.get("items", {}).get("enum")
        is_open = not words and schema.get("type") not in {"object", "array"}
        found.setdefault(path[-1], set()).update({_ANY} if is_open else words or ())
    return {name: frozenset(map(str, words)) for name, words in found.items() if words and _ANY not in words}


_ANY: Final = ""


def vocabulary() -> Names:
    """Return every word of the closed sets, the names of these sets, and the kinds."""
    words = {str(member) for enum in ENUMS for member in enum} | {enum.__name__ for enum in ENUMS}
    words |= {word for words_of_field in field_values().values() for word in words_of_field}
    return frozenset(words | {v.POLICY_KIND, v.STATE_KIND, v.PROFILE_KIND, *(row.trap for row in TRAPS)})


def resources() -> Names:
    """Return what kubectl takes for our kinds."""
    words = {
        v.POLICY_PLURAL,
        v.POLICY_SHORT_NAME,
        v.STATE_PLURAL,
        v.STATE_SHORT_NAME,
        v.PROFILE_PLURAL,
        v.PROFILE_SHORT_NAME,
        v.CATEGORY,
    }
    return frozenset(words | {crd["spec"]["names"]["singular"] for crd in all_crds().values()})


def group_names() -> Names:
    """Return the names that end in the API group: of CRDs, labels, annotations, finalizers."""
    crds = {f"{plural}.{v.GROUP}" for plural in (v.POLICY_PLURAL, v.STATE_PLURAL, v.PROFILE_PLURAL)}
    return frozenset(
        {v.GROUP, v.API_VERSION, v.RESTORE_FINALIZER, v.EPOCH_ANNOTATION, v.POLICY_UID_LABEL, v.CELL_ANNOTATION_PREFIX}
        | crds
    )


# --- programs --------------------------------------------------------------------------------------------------------


def metric_names() -> Names:
    """Return every series of every metric."""
    found = {one.full_name for one in (*metrics.METRICS, *agent_metrics.METRICS)}
    histograms = (one.full_name for one in metrics.METRICS if one.kind is metrics.Kind.HISTOGRAM)
    return frozenset(found | {f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count")})


def labels() -> Names:
    """Return the labels of the metrics."""
    return frozenset({*metrics.LABELS, *AGENT_LABELS})


def settings() -> Names:
    """Return the names of the settings of operator and agent."""
    return frozenset([*operator.OperatorSettings.model_fields, *(row.name for row in agent.SETTINGS)])


def variables() -> Names:
    """Return their environment variables."""
    ours = (operator.variable(name) for name in operator.OperatorSettings.model_fields)
    return frozenset([*ours, *(row.variable for row in agent.SETTINGS)])


def flags() -> Names:
    """Return their flags, and those of the kubectl plugin."""
    theirs = (found for command in _plugin().values() for one in command.params for found in one.opts)
    return frozenset([*(operator.flag(name) for name in settings()), *theirs])


def subcommands() -> Names:
    """Return the commands of the operator's program."""
    return frozenset(COMMANDS)


def plugin_commands() -> Names:
    """Return the commands of the kubectl plugin."""
    return frozenset(_plugin())


@cache
def _plugin() -> dict[str, click.Command]:
    context = click.Context(plugin)
    return {name: command for name in plugin.list_commands(context) if (command := plugin.get_command(context, name))}


def targets() -> Names:
    """Return the targets of the Makefile."""
    return frozenset(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


# --- the chart -------------------------------------------------------------------------------------------------------


@cache
def chart_values() -> Names:
    """Return the path of every value of the chart."""
    return frozenset(_paths(yaml.safe_load((CHART / "values.yaml").read_text())))


def _paths(values: Any, above: str = "") -> Iterator[str]:
    if isinstance(values, dict):
        for key, inner in values.items():
            yield f"{above}{key}"
            yield from _paths(inner, f"{above}{key}.")


def _in_the_chart(pattern: str) -> Names:
    files = [path for folder in (CHART, ROOT / "deploy") for path in folder.rglob("*") if path.is_file()]
    return frozenset(name for path in files for name in re.findall(pattern, path.read_text()))


def object_names() -> Names:
    """Return the names of objects, accounts and files that the chart installs, and of the two programs."""
    return _in_the_chart(r"\b(numamigration-[a-z-]+[a-z](?:\.json)?)") | {operator.PROGRAM, agent.PROGRAM}


def alerts() -> Names:
    """Return the names of the chart's alerts."""
    return _in_the_chart(r"\balert: (\w+)")


# --- kernels ---------------------------------------------------------------------------------------------------------


def kernel_files() -> Names:
    """Return the path of every file and folder that a row of the agent's tables names."""
    named = (
        {knob.path for knob in KNOBS}
        | {counter.path for counter in COUNTERS}
        | {one.path for row in DIALECTS for one in row.detections}
    )
    folders = {folder for row in DIALECTS for folder in (*row.folders, row.module_dir)}
    return frozenset(_with_parents(filter(None, named | folders)))


def _with_parents(paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        parts = path.split("/")
        yield from ("/".join(parts[:depth]) for depth in range(2, len(parts) + 1))


def kernel_words() -> Names:
    """Return the names of those files, counters and drivers, without folders."""
    others = {name for row in DIALECTS for name in row.other_files}
    counted = {key for row in COUNTERS for key in row.vmstat_keys}
    return frozenset({path.rpartition("/")[2] for path in kernel_files()} | others | counted | set(DMA_DRIVERS))


# --- words of others -------------------------------------------------------------------------------------------------

OTHERS: Final[Mapping[str, Names]] = {
    "Kubernetes, Helm and GitOps tools": frozenset(
        {
            "Localhost",
            "Refuse",
            "Require",
            "RuntimeDefault",
            "SelfSubjectRulesReview",
            "Unconfined",
            "ValidatingAdmissionPolicy",
            "Warn",
            "healthChecks",
            "spec.nodeName",
            "values.schema.json",
            "wait",
        }
    ),
    "the kernel and its interfaces": frozenset(
        {
            "core_pattern",
            "dma_device_release",
            "find_candidate",
            "in_use",
            "move_pages",
            "numa_hint_faults",
            "uevent_helper",
        }
    ),
    "tests, tools and code of this repository": frozenset(
        {
            "--real-agents",
            "Dockerfile",
            "ListWatch",
            "ends_guest",
            "jobs.perform",
            "numa_node",
            "only_turned_off",
            "own_machine",
            "queue_depth",
            "reboots_guest",
            "watch_check",
        }
    ),
}
"""Words in code font that are not ours, by whose they are: only what documents use, for a test refuses the rest."""


def of_others() -> Names:
    """Return the words of all others."""
    return frozenset().union(*OTHERS.values())

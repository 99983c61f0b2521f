# SPDX-License-Identifier: Apache-2.0
"""Whatever stands in a kernel file, a state file, a spec or a status: no exception, no guess, no endless work.

Bytes are random, or near to what belongs there, for random bytes alone hardly ever get past the first check.
"""

from __future__ import annotations

import errno
import gzip
import json
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from numamigration_agent.baseline import (
    FILE_BYTES_MAX,
    FILE_NAME,
    BaselineFile,
    Baselines,
    baselines_of_status,
    format_baselines,
    recover,
)
from numamigration_agent.groups import Known
from numamigration_agent.kernel.codecs import NO_REASONS, VALUE_LENGTH_MAX, Value, is_reason_name, reason_names
from numamigration_agent.kernel.counters import VMSTAT_PATH, parse_count, parse_vmstat, read_counters
from numamigration_agent.kernel.dialects import CODECS, COUNTERS, DIALECTS, KNOBS
from numamigration_agent.kernel.engines import DMA_CLASS_DIR, parse_numa_node
from numamigration_agent.kernel.probe import (
    CONFIG_BYTES_MAX,
    KernelFacts,
    parse_boot_id,
    parse_cpu_model,
    parse_driver_as_module,
    probe,
    probe_host,
)
from numamigration_agent.kernel.sysfs import Sysfs
from numamigration_agent.plan import Plan, make_plan, plan_policy
from numamigration_agent.recovery import reasons_of_status, settled_of_status, totals_of_status
from numamigration_agent.reports import Reports
from numamigration_agent.status import build_status, significant
from numamigration_agent.view import View
from numamigration_agent.wishes import Spec, parse_spec
from numamigration_api.machinery.shapes import moment
from numamigration_api.models.node_state import NodeMigrationStateStatus
from numamigration_api.vocabulary import GroupMode, GroupState, Reason, SettingsGroup
from tests.fakekernel.config import HostConfig
from tests.fakekernel.model import FakeKernel
from tests.unit.agent_rig import OFFLOAD, FakeSysfs, wish

pytestmark = pytest.mark.uncounted

NOW: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BOOT: Final = "0b5a6b0c-95a2-4ae1-9d4f-5a3c8d7a1f10"
STATUS_BYTES_MAX: Final = 10_000

few = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
many = settings(max_examples=250, deadline=None)

NEAR: Final = [
    *("0", "1", "16", "4\n", "010\n", "-1\n", "2147483648\n", "9" * 5000, "4\n\n", "٤", "Y\n", "true\n", "false\n"),
    *(
        "none\n",
        "all\n",
        "demotion,damon\n",
        "demotion,all\n",
        "damon,damon\n",
        "demotion,\n",
        ",".join(["a" * 40] * 9),
    ),
    *("compaction,x\n", "0x3ff\n", "live\n", BOOT, f"{BOOT}\n", BOOT.upper(), "model name\t: EPYC\n", "model name :\n"),
    *("processor\t: 0\nCPU implementer\t: 0x41\n", "pgmigrate_success 7\n", "pgmigrate_fail 99999999999999999999\n"),
]
texts = st.one_of(st.sampled_from(NEAR), st.text(max_size=40), st.lists(st.sampled_from(NEAR), max_size=3).map("".join))
contents = st.one_of(texts.map(str.encode), st.binary(max_size=60))
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=12)
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


# --- kernel files


@pytest.mark.parametrize("name", CODECS)
@few
@given(text=texts)
def test_what_a_knob_s_file_says_is_one_canonical_value_or_none(name: str, text: str) -> None:
    """Promise 7: what is taken for a value comes back whole from the status, from the file and from the kernel."""
    codec = CODECS[name]
    value = codec.parse(text)

    if value is None:
        return
    assert codec.parse(value) == codec.parse(f"{value}\n") == value
    assert codec.unshow(codec.show(value)) == value
    assert 0 < len(codec.show(value)) <= VALUE_LENGTH_MAX
    assert codec.format(value).isascii()
    assert codec.format(value).split() == [codec.format(value)]


@many
@given(names=st.lists(st.sampled_from(["none", "all", "demotion", "damon", "memory_failure", "newer"]), min_size=1))
def test_a_mask_never_holds_a_word_that_stands_for_all_or_no_names(names: list[str]) -> None:
    """Promise 3: the kernel takes "all" in a list for every reason, memory_failure too."""
    value = CODECS["offload.reasons"].parse(",".join(names))

    if value == NO_REASONS:
        assert names == [NO_REASONS]
    elif value is not None:
        assert reason_names(value) == set(names)
        assert not {"none", "all"} & set(names)


@many
@given(text=texts)
def test_a_counter_is_a_number_of_the_kernel_or_unknown(text: str) -> None:
    count = parse_count(text)
    assert count is None or 0 <= count < 1 << 64
    assert all(0 <= number < 10**20 for number in parse_vmstat(text).values())
    assert parse_count("7\n") == 7


@many
@given(text=texts)
def test_facts_of_the_host_are_what_the_contract_has_room_for(text: str) -> None:
    place, boot_id = parse_numa_node(text), parse_boot_id(text)

    assert place is None or -1 <= place < 1024
    assert boot_id in {"", text.strip()}
    assert len(boot_id) in {0, 36}
    assert parse_cpu_model(text).isprintable()
    assert parse_cpu_model(text) != ""


@many
@given(data=st.one_of(contents, contents.map(gzip.compress), contents.map(lambda part: gzip.compress(part)[:-3])))
def test_a_configuration_that_is_none_says_nothing(data: bytes) -> None:
    assert parse_driver_as_module(data) is False


def test_a_configuration_is_unpacked_no_further_than_one_is_long() -> None:
    packed = gzip.compress(b"CONFIG_DCBM_DMA=m\n" + b"\0" * (CONFIG_BYTES_MAX + 1))

    assert parse_driver_as_module(packed) is False
    assert parse_driver_as_module(gzip.compress(b"CONFIG_DCBM_DMA=m\n")) is True


def test_a_cpu_model_before_a_page_of_blanks_takes_no_time() -> None:
    assert parse_cpu_model("model name : x" + " " * 4000 + "y" * 40).startswith("x ")


PATHS: Final = [
    *dict.fromkeys((*(knob.path for knob in KNOBS), *(counter.path for counter in COUNTERS if counter.path))),
    *(telling.path for row in DIALECTS for telling in row.detections),
    *(VMSTAT_PATH, "/proc/cpuinfo", "/proc/config.gz", "/proc/sys/kernel/osrelease"),
    *(f"{DMA_CLASS_DIR}/dma{number}chan0/device/numa_node" for number in range(3)),
    *(f"/sys/devices/system/node/node{number}/cpulist" for number in range(2)),
]


class JunkSysfs(Sysfs):
    """A door behind which anything may stand."""

    def __init__(self, files: Mapping[str, bytes | int], names: tuple[str, ...], link: str | None) -> None:
        super().__init__(Path("/nowhere"))
        self._files, self._names, self._link = files, names, link

    def _load(self, path: str, bytes_max: int) -> bytes:
        found = self._files.get(path, errno.ENOENT)
        if isinstance(found, int):
            raise OSError(found, "junk")
        return found[:bytes_max]

    def mode(self, path: str) -> int | None:
        return 0o644 if path in self._files else None

    def names(self, path: str) -> tuple[str, ...]:  # noqa: ARG002  # the same everywhere
        return self._names

    def link_name(self, path: str) -> str | None:  # noqa: ARG002
        return self._link


file_names = st.sampled_from(["dma0chan0", "dma1chan0", "dma2chan0", "node0", "node1", "refcnt", "turbo", "x" * 200])
junk_hosts = st.builds(
    JunkSysfs,
    st.dictionaries(st.sampled_from(PATHS), contents | st.sampled_from([errno.EACCES, errno.EIO, errno.ENODEV]))
    | st.fixed_dictionaries(dict.fromkeys(PATHS, contents)),
    st.lists(file_names | st.text(st.characters(min_codepoint=32, max_codepoint=126)), max_size=30).map(tuple),
    st.sampled_from([None, "ptdma", "idxd", "sdxi", "y" * 255]),
)
WISHES: Final = {
    "offload": wish(OFFLOAD),
    "balancing": wish({"mode": "Tiering", "promoteRateLimitMBps": 2048}),
    "demotion": wish({"enabled": True}),
}


def state_of(groups: Any, plans: Any = None) -> dict[str, Any]:
    return {"metadata": {"uid": "u", "generation": 2}, "spec": {"revision": "0" * 16, "groups": groups, "plans": plans}}


def check_plan(facts: KernelFacts, spec: Spec) -> Plan:
    """Plan, and check what the kernel is to be told and what people are."""
    plan = make_plan(facts, spec, Known(Baselines(BOOT)))
    for change in plan.changes:
        for write in change.writes:
            assert write.knob in KNOBS
            assert write.knob.codec.parse(write.target) == write.target
    policies = tuple(plan_policy(facts, request, Known(Baselines(BOOT))) for request in spec.plans)
    status = build_status(View(spec, facts, plan.groups, policies), now=NOW, conditions=())
    document = json.dumps(status)
    NodeMigrationStateStatus.model_validate_json(document)
    assert len(document) < STATUS_BYTES_MAX
    return plan


@many
@given(sysfs=junk_hosts)
def test_whatever_the_kernel_says_the_status_is_small_and_legal_and_no_unknown_is_a_number(sysfs: JunkSysfs) -> None:
    """Promise 12, and 14: what is written is a value of the knob table."""
    facts = probe(sysfs, probe_host(sysfs))
    counts = read_counters(sysfs, facts.dialect)

    assert all(isinstance(number, int) for number in counts.values())
    plan = check_plan(facts, parse_spec(state_of(WISHES)))
    for group in plan.groups:
        unreadable = [row for row in group.knobs if row.knob and facts.value(row.knob) is None]
        assert not unreadable or group.state is not GroupState.READY


# --- the baseline file

baseline_fields = st.sampled_from(sorted(CODECS)) | st.text(max_size=8)
swaps = st.fixed_dictionaries({"before": texts | scalars, "target": texts | scalars}) | anything
near_files = st.fixed_dictionaries(
    {},
    optional={
        "version": st.sampled_from([1, 2, 3, True, 2.0, "2", None]) | anything,
        "bootID": st.just(BOOT) | anything,
        "values": st.dictionaries(baseline_fields, texts | anything, max_size=4) | anything,
        "openUnits": st.dictionaries(
            st.text(max_size=8), st.dictionaries(baseline_fields, swaps, max_size=3) | anything, max_size=2
        )
        | anything,
    },
)


@settings(many, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(contents, near_files.map(json.dumps).map(str.encode), anything.map(json.dumps).map(str.encode)))
def test_any_baseline_file_is_understood_or_told_apart(tmp_path: Path, data: bytes) -> None:
    """Promise 1: and one that is understood is kept as it is by the next save."""
    file = BaselineFile(tmp_path)
    (tmp_path / FILE_NAME).write_bytes(data)

    loaded = file.load(BOOT)
    if isinstance(loaded, Baselines):
        assert loaded.boot_id == BOOT
        assert file.save(loaded) == ""
        assert file.load(BOOT) == loaded
    assert recover(loaded, {}, BOOT).boot_id == BOOT


def a_value(name: str) -> st.SearchStrategy[Value]:
    found = [CODECS[name].parse(text) for text in NEAR]
    return st.sampled_from(sorted({value for value in found if value is not None}))


@many
@given(values=st.fixed_dictionaries({}, optional={name: a_value(name) for name in CODECS}))
def test_every_baseline_comes_back_from_the_file_and_from_the_status(values: dict[str, Value]) -> None:
    """Promise 7."""
    shown = [{"field": name, "baseline": CODECS[name].show(value)} for name, value in values.items()]

    found = baselines_of_status({"bootID": BOOT, "knobs": shown}, BOOT)
    assert found is not None
    assert found.values == values
    assert len(format_baselines(found)) < FILE_BYTES_MAX


# --- specs of a newer operator

words = st.sampled_from(["DMA", "Off", "CPUThreads", "Tiering", "Normal", "Sideways", "demotion", "newer", ""])
settings_keys = st.sampled_from(
    ["engine", "channels", "reasons", "mode", "promoteRateLimitMBps", "enabled", "minSize", "turbo"]
) | st.text(max_size=200)
some_settings = st.dictionaries(settings_keys, words | st.lists(words, max_size=3) | anything, max_size=4)
some_wishes = st.fixed_dictionaries(
    {},
    optional={
        "settings": some_settings | anything,
        "source": anything | st.fixed_dictionaries({"policy": st.just("p"), "uid": st.just("u")}),
        "mode": st.sampled_from([*GroupMode, "Rehearse"]) | anything,
        "drift": st.sampled_from(["Correct", "Report", "Ask"]) | anything,
        "unsupported": st.sampled_from(["Strict", "BestEffort"]) | anything,
        "verification": st.sampled_from(["Off", "FirstUse", "Quorum"]) | anything,
        "acceptedRisks": st.lists(st.sampled_from(["UnverifiedEngine", "NewRisk"]), max_size=2) | anything,
        "release": st.sampled_from(["Restore", "Keep", "Sell"]) | anything,
    },
)
group_names = st.sampled_from([*SettingsGroup, "compression"]) | st.text(max_size=8)
a_source = st.just({"policy": "p", "uid": "u", "generation": 1})
some_plans = st.lists(
    st.fixed_dictionaries({"source": a_source, "settings": st.dictionaries(group_names, some_settings, max_size=3)}),
    max_size=3,
)
some_specs = st.builds(
    state_of, st.dictionaries(group_names, some_wishes | anything, max_size=4) | anything, some_plans | anything
)


@pytest.fixture(scope="module")
def facts() -> KernelFacts:
    sysfs = FakeSysfs(FakeKernel(HostConfig(), random.Random(1)))
    return probe(sysfs, probe_host(sysfs))


@many
@given(state=some_specs)
def test_a_spec_of_a_newer_operator_is_planned_or_said_to_be_unknown(facts: KernelFacts, state: dict[str, Any]) -> None:
    """Promise 14: what this release does not know is not written."""
    spec = parse_spec(state)
    groups = state["spec"]["groups"] if isinstance(state["spec"]["groups"], dict) else {}

    assert {*spec.unknown, *(wished.group for wished in spec.wishes)} == set(groups)
    if not spec.plans:  # whose sources are the API server's business
        check_plan(facts, spec)


@few
@given(state=anything, spec=anything, metadata=anything)
def test_an_object_of_any_shape_is_seen(state: Any, spec: Any, metadata: Any) -> None:
    for found in (parse_spec({"metadata": metadata, "spec": spec}), parse_spec({"spec": {"groups": state}})):
        assert found.generation >= 0
        assert all(isinstance(wished.settings, Mapping) for wished in found.wishes)


@few
@given(settings_=some_settings, plans=some_plans)
def test_whatever_a_plan_policy_names_its_result_is_legal(
    facts: KernelFacts, settings_: dict[str, Any], plans: list[Any]
) -> None:
    check_plan(facts, parse_spec(state_of({"offload": wish(settings_)}, plans)))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        pytest.param("offload", {"engine": "Telepathy"}, id="engine"),
        pytest.param("offload", {"engine": "DMA", "channels": "auto"}, id="channels that are a word"),
        pytest.param("offload", {"engine": "DMA", "reasons": "demotion"}, id="reasons that are no list"),
        pytest.param("balancing", {"mode": ["Tiering"]}, id="a list of modes"),
        pytest.param("balancing", {"mode": ""}, id="nothing: a write of it would end the agent"),
        pytest.param("demotion", {"enabled": {"when": "idle"}}, id="demotion"),
    ],
)
def test_a_value_that_this_release_does_not_know_is_said_and_not_written(
    facts: KernelFacts, name: str, wanted: dict[str, Any]
) -> None:
    """Promise 14."""
    plan = check_plan(facts, parse_spec(state_of({name: wish(wanted)})))

    assert plan.changes == ()
    assert (plan.groups[0].state, plan.groups[0].reason) == (GroupState.FAILED, Reason.VERSION_SKEW)


def test_a_word_that_no_file_takes_is_unsupported_and_not_written(facts: KernelFacts) -> None:
    """Promise 14."""
    plan = check_plan(facts, parse_spec(state_of({"balancing": wish({"mode": "Sideways"})})))

    assert plan.changes == ()
    assert plan.groups[0].state is GroupState.UNSUPPORTED


def test_a_group_that_this_release_does_not_know_makes_the_node_not_ready(facts: KernelFacts) -> None:
    """Promise 11: "no policy sets anything here" would be a lie."""
    spec = parse_spec(state_of({"compression": wish({"level": 3})}))
    status = build_status(View(spec, facts), now=NOW, conditions=())

    for type_, said in (("Ready", "False"), ("Degraded", "True")):
        found = next(row for row in status["conditions"] if row["type"] == type_)
        assert (found["status"], found["reason"]) == (said, "VersionSkew")
        assert "compression" in found["message"]


def test_a_restore_needs_no_other_word_of_a_wish(facts: KernelFacts) -> None:
    """Promise 13: a newer operator takes back what an older agent did."""
    body = wish(OFFLOAD, mode="Restore", verification="Quorum", drift="Ask", release="Sell")
    plan = make_plan(facts, parse_spec(state_of({"offload": body})), Known(Baselines(BOOT)))

    assert plan.groups[0].state is GroupState.RESTORED


# --- statuses that somebody edited, or a newer agent wrote

some_rows = st.fixed_dictionaries(
    {},
    optional={
        "field": st.sampled_from(sorted(CODECS)) | anything,
        "baseline": texts | anything,
        "observed": texts | anything,
        "desired": texts | anything,
        "outcome": st.sampled_from(["Applied", "AlreadySet", "Guessed"]) | anything,
        "reason": st.sampled_from(["DriftDetected", "NewReason"]) | anything,
    },
)
some_statuses = st.fixed_dictionaries(
    {"bootID": st.just(BOOT) | anything},
    optional={
        "knobs": st.lists(some_rows | anything, max_size=4) | anything,
        "conditions": st.lists(
            st.fixed_dictionaries({"type": st.just("Degraded") | anything, "reason": anything}) | anything, max_size=3
        )
        | anything,
        "statistics": st.dictionaries(st.sampled_from(["foliosMigrated", "since"]), anything) | anything,
        "capabilities": st.fixed_dictionaries({"migrationReasons": st.lists(texts | anything, max_size=4) | anything})
        | anything,
        "settledAt": anything,
        "observedRevision": anything,
    },
)


@many
@given(status=some_statuses)
def test_what_is_taken_from_any_status_are_values_of_their_kind(status: dict[str, Any]) -> None:
    """Promise 14: a status that somebody edited is no way to the kernel."""
    reports = Reports(300, 600, random.Random(1))
    reports.seen({"metadata": {"uid": "u"}, "status": status}, BOOT)

    assert recover(Baselines(BOOT), status, BOOT).values == {}
    found = baselines_of_status(status, BOOT)
    for name, value in (*settled_of_status(status).items(), *(found.values.items() if found else ())):
        assert CODECS[name].parse(value) == value
    assert all(map(is_reason_name, reasons_of_status(status)))
    assert all(total >= 0 for total in totals_of_status(status).values())


some_conditions = st.fixed_dictionaries(
    {"type": st.just("Ready") | anything, "status": st.just("True") | anything, "lastTransitionTime": anything}
)


@few
@given(known=st.lists(some_conditions | anything, max_size=3))
def test_conditions_of_any_shape_do_not_keep_a_status_from_being_built(facts: KernelFacts, known: list[Any]) -> None:
    reports = Reports(300, 600, random.Random(1))
    reports.seen({"metadata": {"uid": "u"}, "status": {"conditions": known}}, BOOT)

    status = build_status(View(Spec(), facts), now=NOW, conditions=reports.conditions)
    NodeMigrationStateStatus.model_validate_json(json.dumps(status))
    assert significant(status)


@pytest.mark.parametrize("text", ["2026-01-02T03:04:05Z", "yesterday", "", 5, None, ["2026-01-02T03:04:05Z"]])
def test_a_time_is_kept_when_it_is_one(text: Any) -> None:
    assert moment(text) in {None, "2026-01-02T03:04:05Z"}

# SPDX-License-Identifier: Apache-2.0
"""``doctor`` and what a support bundle leaves out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from numamigration_api.definitions import definitions
from numamigration_api.vocabulary import FleetSwitch
from numamigration_cli.text import columns
from numamigration_cli.views.doctor import COLUMNS, Check, Denied, Facts, State, advice, doctor
from numamigration_cli.views.redaction import REMOVED, cleaned, cleaned_text
from numamigration_operator.core.fleet_switch import Control
from tests.unit.cli_samples import (
    DENIED,
    DISPUTED,
    NOW,
    READY,
    UNKNOWN,
    condition,
    listed,
    policy,
    profile,
    profile_document,
    state_document,
)

CRDS = {crd["metadata"]["name"]: crd for crd in map(yaml.safe_load, definitions().values())}
VERSION = {"metadata": {"labels": {"app.kubernetes.io/version": "0.1.0"}}}
TEMPLATE = {"template": {"spec": {"containers": [{"securityContext": {"seccompProfile": {"type": "Unconfined"}}}]}}}
WELL = Facts(
    version="v1.37.0",
    plugin="0.1.0",
    crds=CRDS,
    ours=CRDS,
    fence="",
    lease={"spec": {"holderIdentity": "op-1", "renewTime": "2026-11-26T11:59:58.000000Z", "leaseDurationSeconds": 15}},
    operator=VERSION | {"status": {"replicas": 2, "readyReplicas": 2}},
    agents=VERSION | {"spec": TEMPLATE, "status": {"desiredNumberScheduled": 1, "numberReady": 1}},
    states=[listed(state_document("db-1"))],
    nodes=["db-1"],
    policies=[policy(status=READY)],
    profiles=[],
    control=Control(),
    may={"change policies": True},
    now=NOW,
)


EDITED = profile_document() | {"status": profile_document()["status"] | {"recommendation": {"engine": "Off"}}}
MEASURED = [profile(profile_document()), profile(UNKNOWN)]


def found(facts: Facts, name: str) -> list[Check]:
    return [check for check in doctor(facts) if check.check == name]


def test_an_installation_that_is_well_says_so_in_every_line_and_gives_no_advice() -> None:
    checks = doctor(WELL)

    assert {check.state for check in checks} == {State.OK}
    assert advice(checks) == []
    assert columns(checks, COLUMNS, width=80)[:4] == [
        "CHECK         STATE  FOUND",
        "API server    ok     v1.37.0",
        "CRDs          ok     migrationpolicies.numamigration.dev",
        "CRDs          ok     nodemigrationstates.numamigration.dev",
    ]


def without_field(crds: dict[str, Any]) -> dict[str, Any]:
    older = copy.deepcopy(crds)
    schema = older["migrationpolicies.numamigration.dev"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del schema["properties"]["spec"]["properties"]["drift"]
    return older


def unconfined_not(kind: str) -> dict[str, Any]:
    pod = {"containers": [{"securityContext": {"seccompProfile": {"type": kind}}}]}
    return VERSION | {"spec": {"template": {"spec": pod}}, "status": {"desiredNumberScheduled": 1, "numberReady": 1}}


@pytest.mark.parametrize(
    ("change", "name", "state", "message"),
    [
        pytest.param({"version": "v1.31.4+k3s1"}, "API server", "wrong", "1.32 is the oldest", id="old server"),
        pytest.param(
            {"profiles": [profile(DISPUTED)]}, "tuner", "note", "not used, since disputed", id="disputed class"
        ),
        pytest.param(
            {"profiles": [profile(EDITED)]}, "tuner", "note", "not used, since disputed or edited", id="edited class"
        ),
        pytest.param({"profiles": MEASURED}, "tuner", "ok", "2 classes, none disputed", id="measured classes"),
        pytest.param({"profiles": Denied("may not")}, "tuner", "unknown", "may not", id="profiles may not be read"),
        pytest.param({"version": ""}, "API server", "unknown", "version not said", id="no version"),
        pytest.param({"crds": {}}, "CRDs", "wrong", "is missing", id="no CRDs"),
        pytest.param({"crds": without_field(CRDS)}, "CRDs", "wrong", "older: it lacks v1alpha1.spec.drift", id="older"),
        pytest.param({"ours": without_field(CRDS)}, "CRDs", "note", "which this release lacks", id="newer"),
        pytest.param({"crds": Denied("may not")}, "CRDs", "unknown", "may not", id="CRDs may not be read"),
        pytest.param({"fence": "policy does not exist"}, "node fence", "wrong", "does not exist", id="no fence"),
        pytest.param({"lease": None}, "leader", "wrong", "no operator leads", id="no leader"),
        pytest.param({"operator": None}, "operator", "wrong", "is not there", id="no operator"),
        pytest.param({"states": []}, "reports", "wrong", "there is no node state", id="no node state"),
        pytest.param(
            {"nodes": ["db-1", "db-2"]}, "reports", "note", "1 Node without a node state: db-2", id="no state"
        ),
        pytest.param({"plugin": "0.2.0"}, "versions", "note", "plugin 0.2.0; operator 0.1.0", id="version skew"),
        pytest.param({"agents": unconfined_not("RuntimeDefault")}, "seccomp", "wrong", "RuntimeDefault", id="seccomp"),
        pytest.param({"control": Control(FleetSwitch.OFF)}, "fleet switch", "note", "off", id="switch"),
        pytest.param({"control": Control(FleetSwitch.HOLD, "?")}, "fleet switch", "wrong", "?", id="unreadable switch"),
        pytest.param({"policies": [policy()]}, "policies", "wrong", "no operator has seen offload", id="unseen"),
        pytest.param(
            {"may": {"change policies": False}}, "your rights", "note", "may not change policies", id="rights"
        ),
    ],
)
def test_what_is_wrong_is_told_apart(change: dict[str, Any], name: str, state: str, message: str) -> None:
    checks = found(WELL._replace(**change), name)

    assert any(check.state == state and message in check.message for check in checks), checks


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        ("NotLoaded", "module"),
        ("NoDmaChannel", "channels"),
        ("PermissionDenied", "permissions"),
        ("EngineStalled", "engines"),
        ("VerificationImpossible", "verification"),
    ],
)
def test_nodes_with_a_reason_are_counted_and_named(reason: str, name: str) -> None:
    bad = listed(state_document("db-7", ready=condition("Ready", "False", reason)))
    (check,) = found(WELL._replace(states=[bad]), name)

    assert check.state is State.WRONG
    assert check.message == f"{reason} on 1: db-7"


def test_a_leader_that_stopped_renewing_is_none() -> None:
    lease = {"spec": {"holderIdentity": "op-1", "renewTime": "2026-11-26T11:50:00Z", "leaseDurationSeconds": 15}}
    (check,) = found(WELL._replace(lease=lease), "leader")

    assert check.message == "op-1 has not renewed its lease for 10m"


def test_a_silent_agent_is_named() -> None:
    late = listed(state_document("db-1", reportedAt="2026-11-26T11:00:00Z"))
    never = listed({"metadata": {"name": "db-0"}})
    (check,) = found(WELL._replace(states=[late, never], nodes=["db-0", "db-1"]), "reports")

    assert check.message == "0 of 2 nodes report; silent: db-1, db-0"


def test_a_stalled_policy_waits_for_a_person() -> None:
    stalled = policy(status=READY | {"conditions": [condition("Stalled", "True", "RolledBack")]})
    (check,) = found(WELL._replace(policies=[stalled]), "policies")

    assert check.message == "wait for a person: offload"


def test_what_may_not_be_read_is_neither_well_nor_wrong() -> None:
    denied = Denied("may not be read")
    facts = WELL._replace(
        crds=denied, fence=denied, lease=denied, operator=denied, agents=denied, states=denied, nodes=denied,
        policies=denied, control=denied,
    )  # fmt: skip

    assert {check.state for check in doctor(facts)} == {State.OK, State.UNKNOWN}


def test_advice_names_the_check_and_what_was_found() -> None:
    told = advice(doctor(WELL._replace(states=[listed(DENIED)], nodes=[])))

    assert told == [
        "permissions: PermissionDenied on 1: db-2",
        "  the node's message names the chart's value (agent.hostWrite)",
    ]


# What a bundle leaves out

TOKEN = "ey" + "JhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZ2VudCJ9.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"got {TOKEN} here", f"got {REMOVED} here"),
        ("Authorization: Bearer abcdefgh12345678", f"Authorization: Bearer {REMOVED}"),
        ("https://user:hunter2@proxy:3128/x", f"https://user:{REMOVED}@proxy:3128/x"),
        ("db_password=hunter2, retry", f"db_password={REMOVED}, retry"),
        ('{"token": "abc", "n": 1}', f'{{"token": "{REMOVED}", "n": 1}}'),
        ("api-key: x\nnext line", "api-key: x\nnext line"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out_of_texts(text: str, shown: str) -> None:
    assert cleaned_text(text) == shown


def test_a_private_key_is_taken_out_whole() -> None:
    begin, end = "-----BEGIN RSA " + "PRIVATE KEY-----", "-----END RSA " + "PRIVATE KEY-----"

    assert cleaned_text(f"a\n{begin}\nMIIE\nabc\n{end}\nb") == f"a\n{REMOVED}\nb"


def test_variables_with_a_telling_name_lose_their_value_and_others_keep_it() -> None:
    env = [
        {"name": "DB_PASSWORD", "value": "x"},
        {"name": "NODE_NAME", "value": "n"},
        {"name": "TOKEN", "valueFrom": {}},
    ]

    assert cleaned({"env": env})["env"] == [
        {"name": "DB_PASSWORD", "value": REMOVED},
        {"name": "NODE_NAME", "value": "n"},
        {"name": "TOKEN", "valueFrom": {}},
    ]


def test_what_nobody_reads_is_left_out() -> None:
    metadata = {
        "name": "n",
        "managedFields": [],
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "x"},
    }

    assert cleaned({"metadata": metadata}) == {"metadata": {"name": "n", "annotations": {}}}

# SPDX-License-Identifier: Apache-2.0
"""The operator's applier on a real kube-apiserver: what each answer really is, and what comes of it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any, Final, NamedTuple

import msgspec
import pytest

from numamigration_operator.cluster.applier import Applier, Limits, Send, Verdict
from numamigration_operator.cluster.apply_driver import ApplyDriver
from numamigration_operator.cluster.client import Access, Client
from numamigration_operator.core.decisions import Patch, Write, WriteKey, WriteKind
from numamigration_operator.core.objects import PolicyObject
from numamigration_operator.core.policy_record import Pace, PolicyRecord
from numamigration_operator.core.wishes import Spec, Writer, spec_document, spec_replacement
from tests.testbed.api import Api, ApiError, Json
from tests.testbed.controlplane import ControlPlane

API_VERSION: Final = "numamigration.dev/v1alpha1"
POLICIES: Final = f"/apis/{API_VERSION}/migrationpolicies"
STATES: Final = f"/apis/{API_VERSION}/nodemigrationstates"
FINALIZER: Final = "numamigration.dev/restore"
NAMESPACES: Final = "/api/v1/namespaces"
REVISIONS: Final = "/apis/apps/v1/namespaces/default/controllerrevisions"
OTHER_UID: Final = "00000000-0000-0000-0000-000000000000"

UniqueName = Callable[[str], str]
pytestmark = pytest.mark.usefixtures("crds")


class Told(NamedTuple):
    """What the driver told its owner, and what it counted."""

    stored: list[tuple[WriteKey, Json]]
    failures: list[WriteKey]
    skews: list[str]
    fenced: list[str]
    counts: Counter[Verdict]


class CountingApplier(Applier):
    """Tells of each answer."""

    def __init__(self) -> None:
        super().__init__(Limits(), Random(0))
        self.answers: asyncio.Queue[Verdict] = asyncio.Queue()

    def answered(self, sent: Send, status: int, message: str, retry_after: float | None, now: float) -> Verdict:
        verdict = super().answered(sent, status, message, retry_after, now)
        self.answers.put_nowait(verdict)
        return verdict


def drive(control_plane: ControlPlane, *writes: Write, answers: int | None = None, home: str = "default") -> Told:
    """Hand `writes` to a driver; return when so many requests were answered (one each)."""

    async def run() -> Told:
        client = await Client.connect(Access(control_plane.kubeconfig))
        applier = CountingApplier()
        stored: list[tuple[WriteKey, Json]] = []
        failures: list[WriteKey] = []
        skews: list[str] = []
        fenced: list[str] = []
        driver = ApplyDriver(
            client,
            applier,
            home=home,
            on_stored=lambda write, body: stored.append((write.key, json.loads(body))),
            on_failure=failures.append,
            on_skew=lambda _write, message: skews.append(message),
            on_fenced=fenced.append,
            may_send=lambda: True,
        )
        driver.submit(writes)
        task = asyncio.create_task(driver.run())
        for _ in range(len(writes) if answers is None else answers):
            await applier.answers.get()
        task.cancel()
        await asyncio.wait([task])
        await client.close()
        verdicts = Counter[Verdict]()
        for (_, verdict), count in applier.counts.items():
            verdicts[verdict] += count
        return Told(stored, failures, skews, fenced, verdicts)

    return asyncio.run(asyncio.wait_for(run(), 30))


def policy(api: Api, name: str, **spec: Any) -> Json:
    body = {
        "apiVersion": API_VERSION,
        "kind": "MigrationPolicy",
        "metadata": {"name": name},
        "spec": {"nodeSelector": {"matchLabels": {"no": "node"}}, "settings": {"demotion": {"enabled": True}}, **spec},
    }
    return api.create(POLICIES, body)


def status_write(name: str, uid: str, status: Json, *, version: str | None = None) -> Write:
    metadata = {"name": name, "uid": uid} | ({} if version is None else {"resourceVersion": version})
    body = {"apiVersion": API_VERSION, "kind": "MigrationPolicy", "metadata": metadata, "status": status}
    return Write(WriteKey(WriteKind.POLICY_STATUS, name), json.dumps(body).encode())


def finalizer_write(shown: Json, *, wanted: bool, uid: str | None = None) -> Write:
    """What the core decides about the policy that was shown; with another `uid`, about a namesake of before."""
    metadata = {**shown["metadata"], "uid": uid or shown["metadata"]["uid"]}
    record = PolicyRecord(msgspec.convert({**shown, "metadata": metadata}, PolicyObject), Pace(5.0, 60.0, 1.0))
    write = record.finalizer_write(wanted)
    assert write is not None
    return write


def state_write(name: str, **spec: Any) -> Write:
    body = {"apiVersion": API_VERSION, "kind": "NodeMigrationState", "metadata": {"name": name}, "spec": spec}
    return Write(WriteKey(WriteKind.STATE_SPEC, name), json.dumps(body).encode())


def test_an_apply_creates_a_node_state_and_the_same_again_changes_nothing(
    control_plane: ControlPlane, api: Api, unique_name: UniqueName
) -> None:
    """Promise 2, towards the API server."""
    name = unique_name("node")
    drive(control_plane, state_write(name, revision="0123456789abcdef"))
    created = api.get(f"{STATES}/{name}")

    told = drive(control_plane, state_write(name, revision="0123456789abcdef"))

    assert api.get(f"{STATES}/{name}") == created
    assert [entry["manager"] for entry in created["metadata"]["managedFields"]] == ["numamigration-operator"]
    assert told.counts == {Verdict.DONE: 1}


def test_a_group_that_a_backup_brought_back_goes_with_a_replacement(
    control_plane: ControlPlane, api: Api, unique_name: UniqueName
) -> None:
    """Promise 13: an apply that leaves it out takes it from us only."""
    name = unique_name("node")
    source = {"policy": "p", "uid": "u", "generation": 1}
    wish = {"source": source, "mode": "Apply", "release": "Keep", "settings": {"enabled": True}}
    backup = {
        "apiVersion": API_VERSION,
        "kind": "NodeMigrationState",
        "metadata": {"name": name},
        "spec": {"groups": {"demotion": wish}},
    }
    api.apply(f"{STATES}/{name}", backup, "kubectl", force=True)
    empty = b"".join(spec_document(node=name, node_uid=OTHER_UID, state_uid=None, spec=Spec(), writer=Writer(1, 1)))
    drive(control_plane, Write(WriteKey(WriteKind.STATE_SPEC, name), empty))
    shown = api.get(f"{STATES}/{name}")
    assert "demotion" in shown["spec"]["groups"]

    body = spec_replacement(state_uid=shown["metadata"]["uid"], spec=Spec(), writer=Writer(2, 1))
    told = drive(control_plane, Write(WriteKey(WriteKind.STATE_SPEC, name), body, patch=Patch.JSON))

    after = api.get(f"{STATES}/{name}")
    assert after["spec"] == {"revision": shown["spec"]["revision"], "leaderEpoch": 2, "writeSequence": 1}
    [(key, answer)] = told.stored
    assert (key, answer["metadata"]) == (WriteKey(WriteKind.STATE_SPEC, name), after["metadata"])
    assert answer.keys() == {"kind", "apiVersion", "metadata"}  # the rest would be kilobytes that nobody reads


@pytest.mark.parametrize("patch", [Patch.APPLY, Patch.JSON], ids=["apply", "replacement"])
def test_a_spec_over_a_node_state_that_changed_since_is_refused_and_decided_anew(
    control_plane: ControlPlane, api: Api, unique_name: UniqueName, patch: Patch
) -> None:
    """Promise 7: a push of a predecessor that came late is not replaced unseen."""
    name = unique_name("node")
    key = WriteKey(WriteKind.STATE_SPEC, name)
    drive(control_plane, state_write(name, revision="0" * 16, leaderEpoch=1, writeSequence=1))
    seen = api.get(f"{STATES}/{name}")["metadata"]
    uid, writer = seen["uid"], Writer(2, 1)

    def onto(version: str) -> Write:
        if patch is Patch.JSON:
            body = spec_replacement(state_uid=uid, version=version, spec=Spec(), writer=writer)
        else:
            parts = spec_document(
                node=name, node_uid=OTHER_UID, state_uid=uid, version=version, spec=Spec(), writer=writer
            )
            body = b"".join(parts)
        return Write(key, body, patch=patch)

    drive(control_plane, state_write(name, revision="1" * 16, leaderEpoch=1, writeSequence=2))
    late = api.get(f"{STATES}/{name}")

    told = drive(control_plane, onto(seen["resourceVersion"]), answers=1)

    assert (told.counts, told.failures) == ({Verdict.DECIDE_ANEW: 1}, [key])
    assert api.get(f"{STATES}/{name}") == late
    assert drive(control_plane, onto(late["metadata"]["resourceVersion"])).counts == {Verdict.DONE: 1}
    assert api.get(f"{STATES}/{name}")["spec"]["leaderEpoch"] == 2


@pytest.mark.parametrize("recreated", [False, True], ids=["gone", "created anew"])
def test_a_push_for_a_node_state_that_was_deleted_is_decided_anew(
    control_plane: ControlPlane, api: Api, unique_name: UniqueName, recreated: bool
) -> None:
    """Promise 8: it may be late, and no spec of its leader stands there any more that would refuse it."""
    name = unique_name("node")
    key = WriteKey(WriteKind.STATE_SPEC, name)
    drive(control_plane, state_write(name, revision="0" * 16))
    uid = api.get(f"{STATES}/{name}")["metadata"]["uid"]
    late = b"".join(spec_document(node=name, node_uid=OTHER_UID, state_uid=uid, spec=Spec(), writer=Writer(1, 1)))
    assert drive(control_plane, Write(key, late)).counts == {Verdict.DONE: 1}
    api.delete(f"{STATES}/{name}")
    if recreated:
        drive(control_plane, state_write(name, revision="1" * 16))
    before = api.get_if_exists(f"{STATES}/{name}")

    told = drive(control_plane, Write(key, late), answers=1)

    assert told.counts == {Verdict.DECIDE_ANEW: 1}
    assert api.get_if_exists(f"{STATES}/{name}") == before


def test_the_finalizer_is_added_and_dropped_and_nothing_else_changes(
    control_plane: ControlPlane, api: Api, unique_name: UniqueName
) -> None:
    name = unique_name("policy")
    before = policy(api, name)

    drive(control_plane, finalizer_write(before, wanted=True))
    added = api.get(f"{POLICIES}/{name}")
    assert added["metadata"]["finalizers"] == [FINALIZER]

    drive(control_plane, finalizer_write(added, wanted=False))
    after = api.get(f"{POLICIES}/{name}")
    assert "finalizers" not in after["metadata"]
    assert after["spec"] == before["spec"]


def test_dropping_the_finalizer_leaves_finalizers_of_others(
    control_plane: ControlPlane, api: Api, unique_name: UniqueName
) -> None:
    name = unique_name("policy")
    policy(api, name)
    other = api.merge_patch(f"{POLICIES}/{name}", {"metadata": {"finalizers": ["example.com/other"]}})

    drive(control_plane, finalizer_write(other, wanted=True))
    drive(control_plane, finalizer_write(api.get(f"{POLICIES}/{name}"), wanted=False))

    assert api.get(f"{POLICIES}/{name}")["metadata"]["finalizers"] == ["example.com/other"]
    api.merge_patch(f"{POLICIES}/{name}", {"metadata": {"finalizers": None}})


def test_a_finalizer_that_a_backup_brought_back_does_not_keep_a_deleted_policy(
    control_plane: ControlPlane, api: Api, unique_name: UniqueName
) -> None:
    """Promise 13: whoever applied it owns it too, so an apply of ours that leaves it out changes nothing."""
    name = unique_name("policy")
    drive(control_plane, finalizer_write(policy(api, name), wanted=True))
    shown = api.get(f"{POLICIES}/{name}")
    backup = {key: shown[key] for key in ("apiVersion", "kind", "spec")}
    backup["metadata"] = {"name": name, "finalizers": shown["metadata"]["finalizers"]}
    api.apply(f"{POLICIES}/{name}", backup, "kubectl", force=True)
    api.delete(f"{POLICIES}/{name}")

    told = drive(control_plane, finalizer_write(api.get(f"{POLICIES}/{name}"), wanted=False))

    assert told.counts == {Verdict.DONE: 1}
    assert api.get_if_exists(f"{POLICIES}/{name}") == {}


def test_dropping_a_finalizer_that_is_no_longer_in_its_place_takes_no_other(
    control_plane: ControlPlane, api: Api, unique_name: UniqueName
) -> None:
    name = unique_name("policy")
    policy(api, name)
    path = f"{POLICIES}/{name}"
    shown = api.merge_patch(path, {"metadata": {"finalizers": [FINALIZER, "example.com/other"]}})
    api.merge_patch(path, {"metadata": {"finalizers": ["example.com/other", FINALIZER]}})

    told = drive(control_plane, finalizer_write(shown, wanted=False), answers=1)

    assert told.counts == {Verdict.DECIDE_ANEW: 1}
    assert told.failures == [WriteKey(WriteKind.POLICY_FINALIZER, name)]
    assert api.get(path)["metadata"]["finalizers"] == ["example.com/other", FINALIZER]
    api.merge_patch(path, {"metadata": {"finalizers": None}})


@pytest.mark.parametrize(
    ("wanted", "verdict"),
    [pytest.param(True, Verdict.DECIDE_ANEW, id="adding"), pytest.param(False, Verdict.GONE, id="dropping")],
)
def test_a_finalizer_for_a_policy_that_is_gone_creates_nothing(
    control_plane: ControlPlane, api: Api, unique_name: UniqueName, wanted: bool, verdict: Verdict
) -> None:
    """Promise 13: a deletion stays one."""
    name = unique_name("policy")
    created = policy(api, name)
    shown = created if wanted else {**created, "metadata": {**created["metadata"], "finalizers": [FINALIZER]}}
    api.delete(f"{POLICIES}/{name}")

    told = drive(control_plane, finalizer_write(shown, wanted=wanted), answers=1)

    assert told.counts == {verdict: 1}
    assert api.get_if_exists(f"{POLICIES}/{name}") == {}


@pytest.mark.parametrize("wanted", [True, False], ids=["adding", "dropping"])
def test_a_finalizer_for_a_namesake_of_a_deleted_policy_is_refused(
    control_plane: ControlPlane, api: Api, unique_name: UniqueName, wanted: bool
) -> None:
    name = unique_name("policy")
    before = [] if wanted else [FINALIZER]
    policy(api, name)
    shown = api.merge_patch(f"{POLICIES}/{name}", {"metadata": {"finalizers": before}})

    told = drive(control_plane, finalizer_write(shown, wanted=wanted, uid=OTHER_UID), answers=1)

    assert told.counts == {Verdict.DECIDE_ANEW: 1}
    assert told.failures == [WriteKey(WriteKind.POLICY_FINALIZER, name)]
    assert api.get(f"{POLICIES}/{name}")["metadata"].get("finalizers", []) == before
    api.merge_patch(f"{POLICIES}/{name}", {"metadata": {"finalizers": None}})


def test_a_status_for_a_policy_that_is_gone_is_dropped(
    control_plane: ControlPlane, api: Api, unique_name: UniqueName
) -> None:
    name = unique_name("policy")

    told = drive(control_plane, status_write(name, OTHER_UID, {"summary": "x"}))

    assert told.counts == {Verdict.GONE: 1}
    assert told.failures == []
    assert api.get_if_exists(f"{POLICIES}/{name}") == {}


def test_a_field_that_the_crd_does_not_know_is_left_out_and_the_rest_applied(
    control_plane: ControlPlane, api: Api, unique_name: UniqueName
) -> None:
    """An API server refuses such an apply with a 500, for ever; a merge patch stores what it knows."""
    name = unique_name("policy")
    uid = policy(api, name)["metadata"]["uid"]
    status = {"summary": "1/1 ready", "fromTheFuture": 1}

    told = drive(control_plane, status_write(name, uid, status), answers=2)

    assert told.counts == {Verdict.SKEW: 1, Verdict.DONE: 1}
    assert "field not declared in schema" in told.skews[0]
    assert api.get(f"{POLICIES}/{name}")["status"] == {"summary": "1/1 ready"}


@pytest.mark.parametrize(
    ("summary", "answers"),
    [pytest.param("x" * 10_000, 1, id="too long"), pytest.param(7, 2, id="wrong type, first taken for a skew")],
)
def test_a_value_that_the_schema_refuses_is_given_up_and_told(
    control_plane: ControlPlane, api: Api, unique_name: UniqueName, summary: object, answers: int
) -> None:
    name = unique_name("policy")
    uid = policy(api, name)["metadata"]["uid"]

    told = drive(
        control_plane,
        status_write(name, uid, {"summary": summary}),
        answers=answers,
    )

    assert told.counts[Verdict.GIVEN_UP] == 1
    assert told.failures == [WriteKey(WriteKind.POLICY_STATUS, name)]


def test_many_writes_arrive_with_the_latest_of_each(
    control_plane: ControlPlane, api: Api, unique_name: UniqueName
) -> None:
    names = [unique_name("node") for _ in range(40)]
    old = [state_write(name, revision="0" * 16) for name in names]
    new = [state_write(name, revision="f" * 16) for name in names]

    told = drive(control_plane, *old, *new, answers=len(names))

    assert told.counts == {Verdict.DONE: len(names)}
    assert {api.get(f"{STATES}/{name}")["spec"]["revision"] for name in names} == {"f" * 16}


def test_the_api_server_refuses_an_apply_without_the_uid_guard_differently(api: Api, unique_name: UniqueName) -> None:
    """Why the uid is in every policy write: else only the schema keeps a deleted policy from coming back."""
    name = unique_name("policy")
    body = {"apiVersion": API_VERSION, "kind": "MigrationPolicy", "metadata": {"name": name, "finalizers": [FINALIZER]}}

    with pytest.raises(ApiError, match="spec: Required value"):
        api.apply(f"{POLICIES}/{name}", body, "numamigration-finalizer", force=True)


# --- reservations: a status that is written only over what was seen -----------------------------------------------


def reservation(shown: Json, *, epoch: int = 1) -> Write:
    """Write a status over the policy that was shown, and over no other."""
    metadata = shown["metadata"]
    status = {"summary": "rolling out", "rollout": {"leaderEpoch": epoch}}
    return status_write(metadata["name"], metadata["uid"], status, version=metadata["resourceVersion"])


def test_a_reservation_over_the_policy_that_was_seen_is_stored_and_told_with_the_policy(
    control_plane: ControlPlane, api: Api, unique_name: UniqueName
) -> None:
    name = unique_name("policy")

    told = drive(control_plane, reservation(policy(api, name)))

    shown = api.get(f"{POLICIES}/{name}")
    assert shown["status"]["rollout"]["leaderEpoch"] == 1
    assert told.counts == {Verdict.DONE: 1}
    assert told.stored == [(WriteKey(WriteKind.POLICY_STATUS, name), shown)]


@pytest.mark.parametrize("before", [False, True], ids=["that says something new", "that says what stands there"])
def test_a_reservation_over_a_policy_that_changed_since_is_refused_and_decided_anew(
    control_plane: ControlPlane, api: Api, unique_name: UniqueName, before: bool
) -> None:
    """Promise 8: an edit, or a reservation of another leader, was not seen by whoever decided this one."""
    name = unique_name("policy")
    seen = policy(api, name)
    if before:
        drive(control_plane, reservation(seen))
        seen = api.get(f"{POLICIES}/{name}")
    edited = api.merge_patch(f"{POLICIES}/{name}", {"spec": {"priority": 101}})

    told = drive(control_plane, reservation(seen))

    assert told.counts == {Verdict.DECIDE_ANEW: 1}
    assert told.failures == [WriteKey(WriteKind.POLICY_STATUS, name)]
    assert api.get(f"{POLICIES}/{name}") == edited


@pytest.mark.parametrize(
    ("stale", "verdict"),
    [
        pytest.param(False, Verdict.FENCED, id="over what was seen"),
        pytest.param(True, Verdict.DECIDE_ANEW, id="over an older policy, which is noticed first"),
    ],
)
def test_a_reservation_of_a_deposed_leader_changes_nothing(
    control_plane: ControlPlane, api: Api, unique_name: UniqueName, stale: bool, verdict: Verdict
) -> None:
    """Promise 8."""
    name = unique_name("policy")
    created = policy(api, name)
    drive(control_plane, reservation(created, epoch=2))
    claimed = api.get(f"{POLICIES}/{name}")

    told = drive(control_plane, reservation(created if stale else claimed, epoch=1))

    assert told.counts == {verdict: 1}
    assert api.get(f"{POLICIES}/{name}") == claimed


# --- contents of policies -----------------------------------------------------------------------------------------


def revision_write(
    name: str, *, annotations: Json, enabled: bool = True, revision: int = 1, version: str | None = None
) -> Write:
    body = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": name,
            "resourceVersion": version,
            "labels": {"numamigration.dev/policy-uid": OTHER_UID},
            "annotations": annotations,
            "ownerReferences": [{"apiVersion": API_VERSION, "kind": "MigrationPolicy", "name": "p", "uid": OTHER_UID}],
        },
        "data": {"settings": {"demotion": {"enabled": enabled}}},
        "revision": revision,
    }
    return Write(WriteKey(WriteKind.REVISION, name), json.dumps(body).encode())


def creation(name: str) -> Write:
    return replace(revision_write(name, annotations={}), patch=Patch.CREATE)


def deletion(name: str, uid: str) -> Write:
    body = json.dumps({"preconditions": {"uid": uid}}).encode()
    return Write(WriteKey(WriteKind.REVISION_DELETION, name), body, patch=Patch.DELETE)


def test_a_controller_revision_is_stored_and_its_verdicts_and_number_replaced(
    control_plane: ControlPlane, api: Api, unique_name: UniqueName
) -> None:
    name = unique_name("revision")
    drive(control_plane, revision_write(name, annotations={"cell.numamigration.dev/a": "x"}))

    told = drive(control_plane, revision_write(name, annotations={"cell.numamigration.dev/b": "y"}, revision=2))

    shown = api.get(f"{REVISIONS}/{name}")
    assert shown["metadata"]["annotations"] == {"cell.numamigration.dev/b": "y"}
    assert shown["revision"] == 2
    assert shown["data"] == {"settings": {"demotion": {"enabled": True}}}
    assert told.stored == [(WriteKey(WriteKind.REVISION, name), shown)]


def test_a_controller_revision_is_created_once_and_written_onto_what_was_seen(
    control_plane: ControlPlane, api: Api, unique_name: UniqueName
) -> None:
    """Promise 8: no write that is late takes a verdict back."""
    name, mark = unique_name("revision"), {"cell.numamigration.dev/a": "x"}
    assert drive(control_plane, creation(name)).counts == {Verdict.DONE: 1}
    seen = api.get(f"{REVISIONS}/{name}")["metadata"]["resourceVersion"]
    assert drive(control_plane, revision_write(name, annotations=mark, version=seen)).counts == {Verdict.DONE: 1}

    for late in (creation(name), revision_write(name, annotations={}, version=seen)):
        told = drive(control_plane, late)
        assert (told.counts, told.failures) == ({Verdict.DECIDE_ANEW: 1}, [late.key])

    assert api.get(f"{REVISIONS}/{name}")["metadata"]["annotations"] == mark


def test_the_content_of_a_controller_revision_never_changes(
    control_plane: ControlPlane, api: Api, unique_name: UniqueName
) -> None:
    name = unique_name("revision")
    drive(control_plane, revision_write(name, annotations={}))

    told = drive(control_plane, revision_write(name, annotations={}, enabled=False))

    assert told.counts == {Verdict.GIVEN_UP: 1}
    assert told.failures == [WriteKey(WriteKind.REVISION, name)]
    assert api.get(f"{REVISIONS}/{name}")["data"] == {"settings": {"demotion": {"enabled": True}}}


def test_a_controller_revision_is_deleted_by_uid_and_that_it_is_gone_is_no_trouble(
    control_plane: ControlPlane, api: Api, unique_name: UniqueName
) -> None:
    name = unique_name("revision")
    drive(control_plane, revision_write(name, annotations={}))
    uid = api.get(f"{REVISIONS}/{name}")["metadata"]["uid"]

    other = drive(control_plane, deletion(name, OTHER_UID))
    assert (other.counts, other.failures) == ({Verdict.DECIDE_ANEW: 1}, [deletion(name, uid).key])
    assert api.get(f"{REVISIONS}/{name}")

    assert drive(control_plane, deletion(name, uid)).counts == {Verdict.DONE: 1}
    assert api.get_if_exists(f"{REVISIONS}/{name}") == {}
    again = drive(control_plane, deletion(name, uid))
    assert (again.counts, again.stored) == ({Verdict.DONE: 1}, [])


def test_without_the_namespace_a_controller_revision_waits_for_a_person(
    control_plane: ControlPlane, unique_name: UniqueName
) -> None:
    told = drive(control_plane, revision_write("r", annotations={}), home=unique_name("nowhere"))

    assert told.counts == {Verdict.NO_RIGHT: 1}


# --- holds of classes ---------------------------------------------------------------------------------------------

HOLD_A, HOLD_B = "hold.000000000000000a", "hold.000000000000000b"


@pytest.fixture
def home(api: Api, unique_name: UniqueName) -> str:
    """A namespace without a control ConfigMap."""
    name = unique_name("home")
    api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


def control_path(home: str) -> str:
    return f"{NAMESPACES}/{home}/configmaps/numamigration-control"


def hold(key: str, value: str = "{}") -> Write:
    metadata = {"name": "numamigration-control"}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {key: value}}
    return Write(WriteKey(WriteKind.CLASS_HOLD, key), json.dumps(body).encode())


def test_holds_of_classes_leave_each_other_and_what_people_wrote(
    control_plane: ControlPlane, api: Api, home: str
) -> None:
    """Promise 15: else the second class that copies wrong would set the first one free."""
    drive(control_plane, hold(HOLD_A, "a"), home=home)
    api.merge_patch(control_path(home), {"data": {"fleet": "run"}})

    told = drive(control_plane, hold(HOLD_B, "b"), hold(HOLD_A, "a2"), home=home)

    assert told.counts == {Verdict.DONE: 2}
    assert api.get(control_path(home))["data"] == {"fleet": "run", HOLD_A: "a2", HOLD_B: "b"}


def test_a_hold_that_a_person_removed_stays_removed_whatever_hold_comes_next(
    control_plane: ControlPlane, api: Api, home: str
) -> None:
    drive(control_plane, hold(HOLD_A), hold(HOLD_B), home=home)
    api.merge_patch(control_path(home), {"data": {HOLD_A: None}})

    drive(control_plane, hold(HOLD_B, "again"), home=home)

    assert api.get(control_path(home))["data"] == {HOLD_B: "again"}

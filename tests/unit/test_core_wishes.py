# SPDX-License-Identifier: Apache-2.0
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numamigration_api.machinery.canonical import revision_hash
from numamigration_api.vocabulary import GuardrailMetric
from numamigration_operator.core.objects import Guardrail, Observe, StateSpec
from numamigration_operator.core.render import render
from numamigration_operator.core.resolve import policy_facts, resolve
from numamigration_operator.core.wishes import Spec, Writer, observed_spec, revision_of, spec_document, spec_json
from tests.unit.builders import OFFLOAD, TIERING, admitted, policy

WATCHED = Observe(300, (Guardrail(GuardrailMetric.NODE_NOT_READY, "0"),))


def wished(**changes: Any) -> Spec:
    """The spec of a node with one Apply and one Plan policy, which is watched; what `changes` name was edited."""
    spec = Spec(observe=WATCHED, verify_epoch=3)
    for one in (policy(), policy(**changes)):
        plan = policy("plan", mode="Plan")
        spec = render(resolve([policy_facts(one), policy_facts(plan)]), spec, (), admitted)
    return spec


def written(spec: Spec, writer: Writer) -> dict[str, Any]:
    parts = spec_document(node="n", node_uid="u", state_uid=None, spec=spec, writer=writer)
    document: dict[str, Any] = json.loads(b"".join(parts))
    return document


def read(document: dict[str, Any]) -> Spec:
    return observed_spec(msgspec.json.decode(json.dumps(document["spec"]).encode(), type=StateSpec))


def test_the_revision_is_the_hash_of_the_spec_without_itself_the_leader_and_generations() -> None:
    document = written(wished(), Writer(7, 1))["spec"]
    bare = json.loads(json.dumps(document))
    del bare["revision"], bare["leaderEpoch"], bare["writeSequence"]
    for wish in (*bare["groups"].values(), *bare["plans"]):
        del wish["source"]["generation"]

    assert document["revision"] == revision_hash(bare)


def test_an_empty_wish_has_a_revision_too() -> None:
    document = written(Spec(), Writer(1, 1))

    assert document["spec"] == {"revision": revision_hash({}), "leaderEpoch": 1, "writeSequence": 1}


def test_the_document_is_owned_by_the_node() -> None:
    document = written(Spec(), Writer(1, 1))

    assert document["metadata"] == {
        "name": "n",
        "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u", "controller": False}],
    }


def test_the_writers_epoch_and_sequence_stand_in_the_spec() -> None:
    document = written(wished(), Writer(7, 1))

    assert (document["spec"]["leaderEpoch"], document["spec"]["writeSequence"]) == (7, 1)


def test_what_was_written_is_read_back_as_the_same_wish() -> None:
    spec = wished()

    assert read(written(spec, Writer(1, 1))) == spec


@given(st.integers(1, 10**9))
def test_the_hash_does_not_depend_on_the_generation(generation: int) -> None:
    assert revision_of(wished(meta={"generation": generation})) == revision_of(wished())


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"settings": {"offload": OFFLOAD | {"channels": 5}}}, id="a setting"),
        pytest.param({"settings": {"offload": OFFLOAD, "balancing": TIERING}}, id="one more group"),
        pytest.param({"mode": "Paused"}, id="the mode"),
        pytest.param({"drift": "Report"}, id="drift"),
        pytest.param({"unsupported": "Strict"}, id="unsupported"),
        pytest.param({"verification": "Always"}, id="verification"),
        pytest.param({"acceptedRisks": ["SharedEngine"]}, id="accepted risks"),
        pytest.param({"name": "q"}, id="the source"),
    ],
)
def test_the_hash_changes_with(changes: dict[str, Any]) -> None:
    assert revision_of(wished(**changes)) != revision_of(wished())


@pytest.mark.parametrize("change", [{"observe": Observe(301)}, {"verify_epoch": 4}], ids=["watching", "a new trial"])
def test_the_hash_changes_with_what_the_agent_shall_do_besides(change: dict[str, Any]) -> None:
    """An agent reports on a revision: without this it could not say that it has taken these in."""
    assert revision_of(wished()._replace(**change)) != revision_of(wished())


def test_the_order_of_accepted_risks_is_no_change() -> None:
    one, other = ["SharedEngine", "UnverifiedEngine"], ["UnverifiedEngine", "SharedEngine"]

    assert revision_of(wished(acceptedRisks=one)) == revision_of(wished(acceptedRisks=other))


def test_the_order_of_keys_in_settings_is_no_change() -> None:
    turned = dict(reversed(OFFLOAD.items()))

    assert list(turned) != list(OFFLOAD)
    assert spec_json(wished(settings={"offload": turned})) == spec_json(wished())
    assert wished(settings={"offload": turned}) == wished()


def test_what_thousands_of_nodes_are_written_alike_is_in_memory_once() -> None:
    one, other = (
        spec_document(node=name, node_uid=name, state_uid=None, spec=wished(), writer=Writer(7, 1))
        for name in ("n1", "n2")
    )

    assert one[1] is other[1]
    assert len(one[0]) < len(one[1])

# SPDX-License-Identifier: Apache-2.0
"""What counts as a node fence, and what the operator reads of it (a real one: tests/apiserver/test_fence.py)."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from numamigration_api import fence_files
from numamigration_api.fence import FENCE_NAME, admission_binding, admission_policy, fence_problem
from numamigration_operator.cluster.client import Client, NoAnswerError, Response
from numamigration_operator.cluster.fence import CHECK_SECONDS, FIRST_SECONDS, FenceReader

ROOT = Path(__file__).parents[2]
NAMESPACE = "agents"
Json = dict[str, Any]


# What counts


def as_shown() -> tuple[Json, Json]:
    """Return policy and binding with what a real API server (1.37) fills in."""
    policy, binding = admission_policy(NAMESPACE), admission_binding()
    policy["metadata"] |= {"uid": "u", "resourceVersion": "7", "generation": 1}
    policy["spec"]["matchConstraints"] |= {"namespaceSelector": {}, "objectSelector": {}}
    policy["status"] = {"observedGeneration": 1, "typeChecking": {}}
    return policy, binding


def put(*path: Any, value: Any) -> Callable[[Json], None]:
    """Return what puts a value into a spec; None takes the field away."""

    def change(spec: Any) -> None:
        for key in path[:-1]:
            spec = spec[key]
        if value is None:
            del spec[path[-1]]
        else:
            spec[path[-1]] = value

    return change


def test_what_the_api_server_fills_in_is_no_difference() -> None:
    assert fence_problem(*as_shown(), NAMESPACE) == ""


def test_a_fence_without_what_is_the_default_anyway_is_one() -> None:
    policy, binding = as_shown()
    for path in (("failurePolicy",), ("matchConstraints", "matchPolicy"), ("matchConstraints", "namespaceSelector")):
        put(*path, value=None)(policy["spec"])
    put("matchConstraints", "resourceRules", 0, "scope", value=None)(policy["spec"])

    assert fence_problem(policy, binding, NAMESPACE) == ""


@pytest.mark.parametrize(
    ("in_policy", "change"),
    [
        pytest.param(True, lambda spec: spec["validations"].insert(0, {"expression": "1 == 1"}), id="one rule more"),
        pytest.param(False, put("validationActions", value=["Audit", "Deny"]), id="audited too"),
        pytest.param(False, put("matchResources", value={"namespaceSelector": {}}), id="narrowed to everything"),
        pytest.param(
            False,
            put("matchResources", value={"matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {}}),
            id="with defaults",
        ),
    ],
)
def test_a_fence_that_refuses_as_much_or_more_is_one(in_policy: bool, change: Callable[[Json], None]) -> None:
    policy, binding = as_shown()

    change((policy if in_policy else binding)["spec"])

    assert fence_problem(policy, binding, NAMESPACE) == ""


WEAK = [
    pytest.param(True, "failurePolicy", put("failurePolicy", value="Ignore"), id="errors let through"),
    pytest.param(True, "matchConstraints", put("matchConstraints", "matchPolicy", value="Exact"), id="exact"),
    pytest.param(
        True,
        "matchConstraints",
        put("matchConstraints", "resourceRules", 0, "apiVersions", value=["v1alpha1"]),
        id="one version",
    ),
    pytest.param(
        True,
        "matchConstraints",
        put("matchConstraints", "resourceRules", 0, "operations", value=["UPDATE"]),
        id="updates only",
    ),
    pytest.param(
        True,
        "matchConstraints",
        put("matchConstraints", "resourceRules", 0, "resourceNames", value=["n1"]),
        id="one object",
    ),
    pytest.param(
        True,
        "matchConstraints",
        put("matchConstraints", "objectSelector", value={"matchLabels": {"a": "b"}}),
        id="labelled objects",
    ),
    pytest.param(
        True,
        "matchConstraints",
        put("matchConstraints", "excludeResourceRules", value=[{"resources": ["*"]}]),
        id="excluded",
    ),
    pytest.param(True, "matchConstraints", put("matchConstraints", "later", value="x"), id="a field of a later API"),
    pytest.param(
        True,
        "matchConditions",
        put("matchConditions", 0, "expression", value='request.userInfo.username == "other"'),
        id="another account",
    ),
    pytest.param(
        True,
        "matchConditions",
        lambda spec: spec["matchConditions"].append({"name": "never", "expression": "false"}),
        id="one condition more",
    ),
    pytest.param(True, "variables", put("variables", 0, "expression", value="request.name"), id="another node"),
    pytest.param(True, "validations", lambda spec: spec["validations"].pop(2), id="one rule less"),
    pytest.param(True, "validations", put("validations", value=[]), id="no rule"),
    pytest.param(True, "paramKind", put("paramKind", value={"apiVersion": "v1", "kind": "ConfigMap"}), id="parameters"),
    pytest.param(False, "validationActions", put("validationActions", value=["Warn", "Audit"]), id="never denies"),
    pytest.param(False, "policyName", put("policyName", value="another"), id="of another policy"),
    pytest.param(False, "paramRef", put("paramRef", value={"name": "p"}), id="with parameters"),
    pytest.param(
        False,
        "matchResources",
        put("matchResources", value={"objectSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}),
        id="narrowed by labels",
    ),
    pytest.param(
        False,
        "matchResources",
        put("matchResources", value={"resourceRules": [{"resources": ["migrationpolicies"]}]}),
        id="narrowed to a kind",
    ),
]


@pytest.mark.parametrize(("in_policy", "field", "change"), WEAK)
def test_a_fence_that_lets_more_through_is_none(in_policy: bool, field: str, change: Callable[[Json], None]) -> None:
    """Promise 9."""
    policy, binding = as_shown()

    change((policy if in_policy else binding)["spec"])

    assert f"spec.{field}" in fence_problem(policy, binding, NAMESPACE)


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        pytest.param((0,), f"ValidatingAdmissionPolicy {FENCE_NAME} does not exist", id="policy"),
        pytest.param((1,), f"ValidatingAdmissionPolicyBinding {FENCE_NAME} does not exist", id="binding"),
        pytest.param((0, 1), f"ValidatingAdmissionPolicy {FENCE_NAME} does not exist", id="both"),
    ],
)
def test_half_a_fence_is_none(missing: Sequence[int], said: str) -> None:
    """Promise 9."""
    policy, binding = (None if number in missing else one for number, one in enumerate(as_shown()))

    assert fence_problem(policy, binding, NAMESPACE) == said


def test_a_fence_around_the_agents_of_another_namespace_is_none() -> None:
    """Promise 9."""
    assert "spec.matchConditions" in fence_problem(*as_shown(), "another")


# The files


def test_the_files_are_what_the_source_says() -> None:
    assert fence_files.main(["--check", str(ROOT)]) == 0


def test_a_stale_file_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fence_files.main([str(tmp_path)])
    stale = tmp_path / "deploy" / "fence.yaml"
    stale.write_text(stale.read_text().replace("Fail", "Ignore"))

    assert fence_files.main(["--check", str(tmp_path)]) == 1
    assert "deploy/fence.yaml: not what the source says; run `make generate`" in capsys.readouterr().err


def test_the_plain_file_is_a_fence_of_the_default_namespace() -> None:
    policy, binding = yaml.safe_load_all((ROOT / "deploy" / "fence.yaml").read_text())

    assert fence_problem(policy, binding, "numamigration-system") == ""


def test_the_template_is_a_fence_of_the_namespace_of_the_release() -> None:
    text = (ROOT / "charts/numa-migration-operator/templates/fence.yaml").read_text()
    body = "\n".join(line for line in text.splitlines() if not line.startswith("{{-"))

    policy, binding = yaml.safe_load_all(body.replace("{{ .Release.Namespace }}", NAMESPACE))

    assert fence_problem(policy, binding, NAMESPACE) == ""


# What the operator reads


class Server:
    """Answers by kind; each look takes the next answer, and the last one stays."""

    def __init__(self, policy: list[Any], binding: list[Any]) -> None:
        self._answers = {"validatingadmissionpolicies": policy, "validatingadmissionpolicybindings": binding}

    async def request(self, method: str, path: str) -> Response:
        kind, name = path.rsplit("/", 2)[1:]
        assert (method, name) == ("GET", FENCE_NAME)
        answers = self._answers[kind]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Response) else Response(200, json.dumps(answer).encode())


def refusal(status: int) -> Response:
    return Response(status, json.dumps({"kind": "Status", "message": "as scripted"}).encode())


def read(policy: list[Any], binding: list[Any], looks: int) -> tuple[list[str], list[float]]:
    """Return what a reader told in so many looks, and how long it rested."""
    told: list[str] = []
    rests: list[float] = []

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        if len(rests) == looks:
            raise asyncio.CancelledError

    async def inner() -> None:
        reader = FenceReader(cast("Client", Server(policy, binding)), NAMESPACE, told.append, rest)
        await asyncio.gather(reader.run(), return_exceptions=True)

    asyncio.run(inner())
    return told, rests


def test_a_fence_that_stands_is_told() -> None:
    policy, binding = as_shown()

    assert read([policy], [binding], 2) == (["", ""], [CHECK_SECONDS, CHECK_SECONDS])


@pytest.mark.parametrize("absent", [0, 1], ids=["policy", "binding"])
def test_what_is_missing_is_told_with_how_to_mend_it(absent: int) -> None:
    """Promise 9."""
    answers: list[list[Any]] = [[one] for one in as_shown()]
    answers[absent] = [refusal(404)]

    (told,), _ = read(answers[0], answers[1], 1)

    assert "does not exist" in told
    assert "apply deploy/fence.yaml" in told
    assert "fence_required=false" in told


def test_what_may_not_be_read_counts_as_missing() -> None:
    """Promise 9."""
    (told,), _ = read([refusal(403)], [refusal(403)], 1)

    assert told == f"{FENCE_NAME} may not be read: apply deploy/rbac.yaml"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(NoAnswerError("gone"), id="no answer"),
        pytest.param(refusal(500), id="an error of its own"),
        pytest.param(refusal(429), id="too busy"),
        pytest.param(refusal(401), id="an old token"),
        pytest.param(Response(200, b"<html>"), id="a proxy"),
    ],
)
def test_an_api_server_that_cannot_tell_changes_nothing(answer: Any) -> None:
    policy, binding = as_shown()

    told, rests = read([answer, policy, answer, policy], [binding], 4)

    assert told == ["", ""]
    assert rests == [FIRST_SECONDS, CHECK_SECONDS, CHECK_SECONDS, CHECK_SECONDS]


def test_a_fence_that_goes_and_comes_back_is_logged_once_each(caplog: pytest.LogCaptureFixture) -> None:
    policy, binding = as_shown()
    caplog.set_level(logging.INFO)

    read([policy, refusal(404), refusal(404), copy.deepcopy(policy)], [binding], 5)

    assert [record.message for record in caplog.records] == [
        "agents are not fenced; only what undoes is pushed",
        "agents are fenced",
    ]

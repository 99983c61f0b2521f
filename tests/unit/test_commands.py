# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import yaml

from numamigration_api.definitions import FILES
from numamigration_operator.__main__ import main
from numamigration_operator.cluster.client import NoAnswerError, Response, StatusError
from numamigration_operator.commands import COMMANDS, asking, crds, uninstall
from numamigration_operator.settings import OperatorSettings, variable

ROOT = Path(__file__).parents[2]
FINALIZER = "numamigration.dev/restore"
Answer = Response | Exception
Edit = Callable[[dict[str, Any]], None]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OperatorSettings.model_fields:
        monkeypatch.delenv(variable(name), raising=False)


class Script:
    """A client whose API server gives these answers in turn; keeps what was sent."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[str, str]] = []
        self.bodies: list[Any] = []

    async def request(self, method: str, path: str, *, body: bytes | None = None, **_: Any) -> Response:
        self.sent.append((method, path.rpartition("/")[2]))
        self.bodies.append(None if body is None else json.loads(body))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def scripted(*answers: Answer) -> Any:
    """Return a Script, for what asks for a Client."""
    return Script(*answers)


def ok(document: Any, status: int = 200) -> Response:
    return Response(status, json.dumps(document).encode())


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


# The command line


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_fits_into_80_columns(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 0
    assert max(len(line) for line in capsys.readouterr().out.splitlines()) <= 80


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["crds"], "action", id="no action"),
        pytest.param(["crds", "aply"], "invalid choice: 'aply'", id="misspelt action"),
        pytest.param(["crds", "apply", "--wait-seconds", "0"], "'0' is not legal; legal is", id="no time"),
        pytest.param(["uninstall", "--wait-seconds", "-1"], "--wait-seconds", id="negative"),
        pytest.param(["uninstall", "--wait-seconds", "86401"], "a whole number from 0 to 86400", id="past the end"),
        pytest.param(["uninstall", "--wait-seconds", "1e3"], "'1e3' is not legal", id="no whole number"),
        pytest.param(["uninstall", "--delete"], "--delete", id="half a flag"),
        pytest.param(["uninstall", "--namespace", "Not_One"], "namespace: 'Not_One' from --namespace", id="setting"),
        pytest.param(["uninstall", "--apply-burst", "3"], "--apply-burst", id="a setting of another command"),
        pytest.param(["crds", "print", "--kubeconfig", "/nowhere/config"], "/nowhere/config", id="no kubeconfig"),
    ],
)
def test_a_wrong_flag_of_a_command_is_one_line_and_exit_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2

    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert said in text


@pytest.mark.parametrize("arguments", [["crds", "apply"], ["uninstall"]], ids=lambda given: given[0])
def test_without_a_cluster_a_command_is_one_line_and_exit_code_2(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", "/nowhere/config")

    assert main(arguments) == 2
    assert capsys.readouterr().err == (
        f"numamigration-operator {arguments[0]}: no kubeconfig at /nowhere/config, and no service account of a pod\n"
    )


def test_an_interrupt_ends_a_command_as_shells_expect_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(*_: Any) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setitem(COMMANDS, "crds", COMMANDS["crds"]._replace(run=interrupted))

    assert main(["crds", "print"]) == 130


# crds print


def test_what_is_printed_is_what_was_generated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["crds", "print"]) == 0

    printed = list(yaml.safe_load_all(capsys.readouterr().out))
    assert printed == [yaml.safe_load((ROOT / "crds" / name).read_text()) for name in FILES]


# Asking


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(NoAnswerError("cut"), id="no answer"),
        pytest.param(Response(429, b""), id="too many requests"),
        pytest.param(Response(503, b""), id="not available"),
    ],
)
def test_trouble_of_the_moment_is_asked_again(trouble: Answer) -> None:
    client = scripted(trouble, ok({}))

    answer = run(asking.ask(client, "GET", "/x", until=float("inf")))

    assert answer.status == 200
    assert len(client.sent) == 2


@pytest.mark.parametrize("status", [403, 404, 409, 422])
def test_an_answer_that_stays_is_returned_at_once(status: int) -> None:
    client = scripted(Response(status, b""))

    assert run(asking.ask(client, "GET", "/x", until=float("inf"))).status == status


@pytest.mark.parametrize(
    ("trouble", "kind"), [(NoAnswerError("cut"), NoAnswerError), (Response(503, b"down"), StatusError)]
)
def test_trouble_that_outlasts_the_time_is_raised(trouble: Answer, kind: type[Exception]) -> None:
    """Promise 13: nothing is waited for without end."""
    with pytest.raises(kind):
        run(asking.ask(scripted(trouble), "GET", "/x", until=0.0))


# Races that a real API server cannot be asked for


def test_a_crd_that_somebody_edits_meanwhile_is_looked_at_again() -> None:
    ours = yaml.safe_load((ROOT / "crds" / FILES[0]).read_text())

    def stored(version: str, **spec: Any) -> Response:
        metadata = {"name": "x", "resourceVersion": version}
        established = {"conditions": [{"type": "Established", "status": "True"}]}
        return ok({"metadata": metadata, "spec": {**ours["spec"], **spec}, "status": established})

    newer = [*ours["spec"]["versions"], {"name": "v1"}]
    client = scripted(stored("1"), Response(409, b""), stored("2", versions=newer), stored("2", versions=newer))
    said: list[str] = []

    assert run(crds._apply(client, ours, float("inf"), said.append))

    assert [method for method, _ in client.sent] == ["GET", "PATCH", "GET", "GET"]
    assert client.bodies[1]["metadata"]["resourceVersion"] == "1"
    assert said == ["migrationpolicies.numamigration.dev: newer: left alone; it has v1, which this release lacks"]


def policies(*finalizers: str) -> Response:
    return ok({"metadata": {}, "items": [{"metadata": {"name": "p", "uid": "u", "finalizers": finalizers}}]})


@pytest.mark.parametrize("status", [404, 409, 422])
def test_a_policy_that_somebody_edits_meanwhile_is_read_again(status: int) -> None:
    """Promise 13: a finalizer that another one puts first does not keep ours."""
    client = scripted(policies(FINALIZER), Response(status, b"moved"), policies("x", FINALIZER), ok({}), policies("x"))

    released = run(uninstall._release(client, print))

    assert released == (True, 1)
    assert client.bodies[3][-1] == {"op": "remove", "path": "/metadata/finalizers/1"}


def test_a_finalizer_that_is_put_back_for_ever_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise 13: it ends, and says that it could not."""
    monkeypatch.setattr(uninstall, "REQUEST_SECONDS", 0.0)
    said: list[str] = []

    released = run(uninstall._release(scripted(policies(FINALIZER)), said.append))

    assert released == (False, 1)
    assert said[0] == "1 policies still have our finalizer, for example p: put back"


def test_policies_beyond_the_first_page_are_found_also_when_the_list_expires() -> None:
    def page(name: str, token: str) -> Response:
        return ok({"metadata": {"continue": token}, "items": [{"metadata": {"name": name}}]})

    client = scripted(page("a", "next"), Response(410, b""), page("a", "next"), page("b", ""))

    found = run(uninstall._list_policies(client, float("inf")))

    assert [policy.name for policy in found] == ["a", "b"]

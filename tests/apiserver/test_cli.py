# SPDX-License-Identifier: Apache-2.0
"""``kubectl numamigration`` on a real kube-apiserver; the tests play the agents."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import secrets
import signal
import struct
import subprocess
import sys
import tarfile
import termios
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import yaml

from numamigration_api.vocabulary import Reason
from numamigration_cli.__main__ import complete, main
from numamigration_cli.exits import Exit
from numamigration_cli.views.profiles import EMPTY
from numamigration_operator.cluster.events import EVENTS_PATH, event_body
from numamigration_operator.core.decisions import EventWish
from tests.apiserver.hook_rights import grant_plugin
from tests.apiserver.operator_process import (
    ACCOUNT,
    AT_ONCE,
    NAMESPACE,
    NODES,
    POLICIES,
    STATES,
    OperatorProcess,
    account,
    forget_leader,
    grant,
    groups,
    is_through,
    join,
    make_node,
    make_policy,
    report,
)
from tests.apiserver.shared_bed import SharedBed
from tests.testbed.api import Api, Json, poll
from tests.testbed.binaries import Binaries
from tests.testbed.chart import Helm
from tests.testbed.controlplane import ControlPlane
from tests.unit.cli_samples import profile_document

PROFILES: Final = "/apis/numamigration.dev/v1alpha1/migrationprofiles"
CRDS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CONTROL: Final = f"/api/v1/namespaces/{NAMESPACE}/configmaps/numamigration-control"
SECRETS: Final = f"/api/v1/namespaces/{NAMESPACE}/secrets"
PODS: Final = f"/api/v1/namespaces/{NAMESPACE}/pods"
ACCOUNTS: Final = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
VIEW: Final = [{"apiGroups": ["numamigration.dev"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]
ONE_PAGE: Final = 500
POLICY_FILE: Final = """\
apiVersion: numamigration.dev/v1alpha1
kind: MigrationPolicy
metadata: {name: planned}
spec:
  nodeSelector: {matchLabels: {name: db-1}}
  settings:
    offload:
      engine: DMA
      channels: 4
"""
TUNED_FILE: Final = POLICY_FILE.replace("      channels: 4\n", "  tuning: {mode: Auto}\n")
HOLD: Final = '{"hardwareClass":"EPYC","dialect":"V6","driver":"ptdma","node":"db-9"}'

OWN_SCREEN: Final = "\x1b[?1049l"
"""Ends the screen that a program has for itself (xterm's control sequences)."""

UniqueName = Callable[[str], str]


class Answer(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Answer]


@pytest.fixture(scope="module")
def kubeconfig(bed: ControlPlane) -> Path:
    return bed.kubeconfig_for(bed.admin_token, name="sre")


@pytest.fixture
def cli(kubeconfig: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*arguments: str, as_: Path = kubeconfig) -> Answer:
        code = main([*arguments, "--kubeconfig", str(as_)])
        return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture(autouse=True)
def empty(api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test is about the whole cluster, and leaves nothing in it."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    yield
    if not api.get_if_exists("/apis/numamigration.dev/v1alpha1"):
        return
    for policy in api.list_items(POLICIES):
        path = f"{POLICIES}/{policy['metadata']['name']}"
        api.merge_patch(path, {"metadata": {"finalizers": None}})
        if api.get_if_exists(path):
            api.delete(path)
    for collection in (STATES, NODES, *([PROFILES] if api.get_if_exists(PROFILES) else [])):
        api.delete(collection)
    if api.get_if_exists(CONTROL):
        api.delete(CONTROL)
    forget_leader(api)


def make_state(api: Api, name: str, ready: str = "True", reason: str = "AsExpected", **status: Any) -> None:
    """Make a Node and its node state, and say what its agent would say."""
    make_node(api, name)
    metadata = {"apiVersion": "numamigration.dev/v1alpha1", "kind": "NodeMigrationState", "metadata": {"name": name}}
    api.create(STATES, metadata)
    condition = {
        "type": "Ready",
        "status": ready,
        "reason": reason,
        "message": f"{reason} is why" if ready == "False" else "",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }
    said = {"dialect": "V6", "hardwareClass": "EPYC", "offload": "Off", "conditions": [condition], **status}
    api.apply(f"{STATES}/{name}", metadata | {"status": said}, "numamigration-agent", force=True, subresource="status")


# Looking


def test_a_cluster_without_a_policy_says_how_to_begin(cli: Cli) -> None:
    answer = cli("status")

    assert answer.code == Exit.DONE
    assert answer.out.startswith("Fleet switch: run\n")
    assert "There is no policy yet" in answer.out


def test_a_policy_that_no_operator_has_seen_says_so(api: Api, cli: Cli) -> None:
    make_policy(api, "alone", "n")

    assert "alone   Unknown  NotSeen" in cli("status").out
    assert cli("status", "alone").code == Exit.DONE


def test_records_are_data(api: Api, cli: Cli) -> None:
    make_policy(api, "alone", "n")

    assert cli("status", "-o", "json").data["policies"][0]["policy"] == "alone"
    assert yaml.safe_load(cli("status", "-o", "yaml").out)["fleet"] == "run"


def test_a_policy_that_is_not_there_names_those_that_are(api: Api, cli: Cli) -> None:
    make_policy(api, "alone", "n")

    assert cli("status", "other") == (Exit.FAILED, "", "error: no policy other\n  there is alone\n")


@pytest.mark.parametrize("name", ["a/b", "..", "a?b=c", "%2e", "ü", "a b", "'"])
def test_a_name_with_odd_characters_is_only_a_name_that_is_not_there(name: str, api: Api, cli: Cli) -> None:
    make_state(api, "n-1")

    for command in (["status", name], ["explain", name], ["pause", name], ["history", name], ["profiles", name]):
        assert cli(*command).code == Exit.FAILED


def test_nodes_are_filtered(api: Api, cli: Cli) -> None:
    make_state(api, "db-1")
    make_state(api, "db-2", "False", "PermissionDenied", dialect="V5")

    assert [row["node"] for row in cli("nodes", "-o", "json").data] == ["db-1", "db-2"]
    answer = cli("nodes", "--reason", "PermissionDenied")
    assert answer.out.splitlines()[1].split()[:4] == ["db-2", "Off", "False", "PermissionDenied"]
    assert "none of 2 nodes is so" in cli("nodes", "--dialect", "V4").err


def test_more_nodes_than_a_page_are_all_listed_and_a_reader_that_goes_early_is_no_error(
    api: Api, cli: Cli, kubeconfig: Path
) -> None:
    for number in range(ONE_PAGE + 1):
        name = f"n-{number:04}"
        api.create(
            STATES,
            {"apiVersion": "numamigration.dev/v1alpha1", "kind": "NodeMigrationState", "metadata": {"name": name}},
        )

    assert len(cli("nodes").out.splitlines()) == ONE_PAGE + 2
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "numamigration_cli", "nodes", "--kubeconfig", str(kubeconfig)]
    done = subprocess.run(command, check=False, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (Exit.BROKEN_PIPE, b"")


def test_a_node_is_explained_with_who_won_and_who_lost(api: Api, cli: Cli) -> None:
    make_state(api, "db-1")
    make_policy(api, "strong", "db-1", priority=900)
    make_policy(api, "weak", "db-1", priority=10)

    (group,) = cli("explain", "db-1", "-o", "json").data["groups"]

    assert (group["group"], group["winner"], group["losers"]) == ("demotion", "strong", ["weak"])
    assert "  losers: weak" in cli("explain", "db-1").out


def test_hardware_classes_are_listed_explained_and_completed(
    api: Api, cli: Cli, capsys: pytest.CaptureFixture[str], kubeconfig: Path
) -> None:
    name = make_profile(api)

    assert [(row["profile"], row["phase"], row["channels"]) for row in cli("profiles", "-o", "json").data] == [
        (name, "Measured", 4)
    ]
    assert cli("profiles").out.splitlines()[1].split()[:5] == [name, "Measured", "DMA", "4", "+17"]
    assert "512 × 4Ki  DMA, 4 channels  2.61" in cli("profiles", name).out
    assert [one["against"] for one in cli("profiles", name, "-o", "json").data["rates"]][:2] == [1.0, 0.92 / 2.14]
    complete(["profiles", "--kubeconfig", str(kubeconfig), "v6"])
    assert capsys.readouterr().out == f"{name}\n:4\n"


def test_a_hardware_class_that_was_not_measured_names_those_that_were(api: Api, cli: Cli) -> None:
    assert cli("profiles") == (Exit.DONE, "", f"{EMPTY}\n")
    assert cli("profiles", "v6-0").err == "error: no profile v6-0\n  no hardware class was measured yet\n"
    name = make_profile(api)
    assert cli("profiles", "v6-0") == (Exit.FAILED, "", f"error: no profile v6-0\n  there is {name}\n")


def make_profile(api: Api) -> str:
    """Make a MigrationProfile as the operator does, and return its name."""
    document = profile_document() | {"apiVersion": "numamigration.dev/v1alpha1", "kind": "MigrationProfile"}
    name = document["metadata"]["name"]
    document["metadata"] = {"name": name}
    api.create(PROFILES, {key: value for key, value in document.items() if key != "status"})
    api.apply(f"{PROFILES}/{name}", document, "numamigration-operator", force=True, subresource="status")
    return str(name)


def test_a_terminal_of_80_columns_gets_no_longer_line(api: Api, kubeconfig: Path) -> None:
    make_state(api, "db-1", "False", "PermissionDenied")
    make_policy(api, "alone", "db-1")
    profile = make_profile(api)

    for words in (
        ["status"],
        ["status", "alone"],
        ["nodes"],
        ["explain", "db-1"],
        ["doctor"],
        ["profiles"],
        ["profiles", profile],
    ):
        lines = on_terminal([*words, "--no-color"], kubeconfig)
        assert lines
        assert not [line for line in lines if len(line) > 80], words


def test_an_empty_cluster_is_told_of_in_80_columns_too(kubeconfig: Path) -> None:
    assert max(map(len, on_terminal(["status"], kubeconfig))) <= 80


def on_terminal(words: list[str], kubeconfig: Path, *, until: str = "", by: signal.Signals | None = None) -> list[str]:
    """Return the lines that a terminal of 80 columns shows; a signal is sent once a word is there."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    # A shell's background job is born with the signal ignored, and so are its children.
    program = ["env", "--default-signal=INT", sys.executable, "-m", "numamigration_cli"]
    command = [*program, *words, "--kubeconfig", str(kubeconfig)]
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    with subprocess.Popen(command, stdout=slave, stderr=subprocess.PIPE, env=environment) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # EIO: nobody has the other side open any more
                break
            if not part:
                break
            shown += part
            if by is not None and until.encode() in shown:
                process.send_signal(by)
                by = None
    os.close(master)
    return shown.decode().splitlines()


def test_kubectl_finds_it_and_completes_its_words(
    api: Api, binaries: Binaries, kubeconfig: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_policy(api, "alone", "n")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "KUBECONFIG": str(kubeconfig)}
    command = [str(binaries.kubectl), "numamigration", "status", "-o", "json"]

    done = subprocess.run(command, check=True, capture_output=True, env=environment)

    assert json.loads(done.stdout)["policies"][0]["policy"] == "alone"
    complete(["status", "--kubeconfig", str(kubeconfig), "al"])
    assert capsys.readouterr().out == "alone\n:4\n"


def test_watching_ends_by_a_signal_without_a_trace(api: Api, kubeconfig: Path) -> None:
    make_policy(api, "alone", "n")
    words = ["status", "--watch", "--interval", "0.5", "--kubeconfig", str(kubeconfig)]
    # A shell's background job is born with the signal ignored, and so are its children.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "numamigration_cli", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().endswith(b" UTC\n")
        assert process.stdout.readline() == b"Fleet switch: run\n"
        make_policy(api, "another", "n")
        while b"another" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)

    assert (process.returncode, err) == (Exit.INTERRUPTED, b"")


def test_a_report_has_every_node_and_policy_and_is_written_over_nothing(api: Api, cli: Cli, tmp_path: Path) -> None:
    make_state(api, "db-1")
    make_state(api, "db-2", "False", "PermissionDenied")
    make_policy(api, "alone", "n")
    tell_event(api, "alone")
    file = tmp_path / "report.html"

    answer = cli("report", "-f", str(file))

    assert (answer.code, answer.err) == (Exit.DONE, "")
    text = file.read_text()
    assert answer.out.startswith(f"{file}: {len(text.encode())} bytes")
    for word in ('title="db-1"', 'title="db-2: PermissionDenied is why"', "alone", "RolledBack: it failed"):
        assert word in text
    assert "Could not be read" not in text
    assert cli("report", "-f", str(file)).code == Exit.FAILED
    assert cli("report", "-f", "-").out.startswith("<!doctype html>")
    assert [row["policy"] for row in cli("report", "-o", "json").data["status"]["policies"]] == ["alone"]


def tell_event(api: Api, policy: str) -> None:
    """Tell an Event as the operator does; it is gone with the policy's name."""
    uid = api.get(f"{POLICIES}/{policy}")["metadata"]["uid"]
    wish = EventWish(policy, uid, True, Reason.ROLLED_BACK, "it failed")
    api.create(EVENTS_PATH, event_body(wish, datetime.now(UTC), instance="here", suffix=secrets.token_hex(4)))


def test_what_was_seen_last_stays_on_the_terminal_when_watching_ends(api: Api, kubeconfig: Path) -> None:
    make_policy(api, "alone", "n")

    lines = on_terminal(["status", "--watch"], kubeconfig, until="alone", by=signal.SIGINT)

    _, _, kept = "\n".join(lines).rpartition(OWN_SCREEN)
    assert "undo: kubectl numamigration pause alone" in kept
    assert "Ctrl-C" not in kept


# Planning


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY_FILE)
    return path


def test_a_plan_tells_what_would_change_and_stores_nothing(api: Api, cli: Cli, policy_file: Path) -> None:
    make_state(api, "db-1", knobs=[{"field": "offload.channels", "observed": "1"}])
    make_state(api, "db-2")

    answer = cli("plan", "-f", str(policy_file))

    assert answer.code == Exit.WOULD_CHANGE
    assert "planned (new): would change 1 of 1 matched node" in answer.out
    assert "    offload.channels: 1 -> 4" in answer.out
    assert api.list_items(POLICIES) == []


def test_a_file_that_is_stored_already_would_change_nothing(api: Api, cli: Cli, policy_file: Path) -> None:
    api.create(POLICIES, yaml.safe_load(POLICY_FILE))

    assert cli("plan", "-f", str(policy_file)).code == Exit.DONE


def test_a_rule_that_only_the_api_server_knows_is_told_with_line_and_column(cli: Cli, policy_file: Path) -> None:
    policy_file.write_text(POLICY_FILE.replace("engine: DMA", "engine: CPUThreads"))

    answer = cli("plan", "-f", str(policy_file))

    assert answer.code == Exit.BAD_FILE
    assert f"{policy_file}:7:5: spec.settings.offload: " in answer.err
    assert "channels is for engine: DMA only" in answer.err


def test_who_may_not_create_policies_gets_a_plan_all_the_same(
    api: Api, cli: Cli, policy_file: Path, viewer: Path
) -> None:
    make_state(api, "db-1")

    answer = cli("plan", "-f", str(policy_file), as_=viewer)

    assert answer.code == Exit.WOULD_CHANGE
    assert "the API server was not asked" in answer.err


# Acting


def test_pausing_and_resuming_change_the_mode_and_nothing_else(api: Api, cli: Cli) -> None:
    before = make_policy(api, "one", "n")["spec"]

    assert cli("pause", "one") == (Exit.DONE, "one: mode Paused\n", "")
    assert api.get(f"{POLICIES}/one")["spec"] == before | {"mode": "Paused"}
    assert cli("pause", "one").out == "one: mode Paused, as before\n"
    assert cli("resume", "one").code == Exit.DONE
    assert api.get(f"{POLICIES}/one")["spec"] == before


def test_the_fleet_switch_is_turned_and_shown_and_leaves_holds_alone(api: Api, cli: Cli) -> None:
    data = {"hold.0123456789abcdef": HOLD}
    path, _, name = CONTROL.rpartition("/")
    api.create(path, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})

    assert cli("stop", "off", "--yes").code == Exit.DONE
    assert api.get(CONTROL)["data"] == data | {"fleet": "off"}
    assert "Fleet switch: off" in cli("status").out
    assert cli("stop", "run", "--yes").code == Exit.DONE
    assert api.get(CONTROL)["data"]["fleet"] == "run"


def test_nobody_to_be_asked_means_nothing_is_changed(api: Api, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path(os.devnull).open() as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        answer = cli("stop", "restore")

    assert answer.code == Exit.USAGE
    assert "--yes answers for them" in answer.err
    assert not api.get_if_exists(CONTROL)


def test_a_held_class_is_released_and_others_stay(api: Api, cli: Cli) -> None:
    data = {"hold.0123456789abcdef": HOLD, "hold.aaaaaaaaaaaaaaaa": HOLD.replace("EPYC", "Xeon"), "fleet": "hold"}
    path, _, name = CONTROL.rpartition("/")
    api.create(path, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})

    assert "kubectl numamigration release-hold 0123456789abcdef" in cli("status").out
    assert cli("release-hold", "epyc", "--yes").code == Exit.DONE
    assert set(api.get(CONTROL)["data"]) == {"hold.aaaaaaaaaaaaaaaa", "fleet"}
    assert cli("release-hold", "epyc", "--yes").code == Exit.FAILED


def test_history_diff_and_rollback_on_what_a_real_operator_stored(
    bed: ControlPlane, api: Api, cli: Cli, tmp_path: Path
) -> None:
    operator = bed.kubeconfig_for(account(bed, ACCOUNT), name=ACCOUNT)
    with OperatorProcess(operator, tmp_path / "operator.log"):
        join(api, "db-1")
        make_policy(api, "tuned", "db-1", settings={"demotion": {"enabled": True}}, rollout=AT_ONCE)
        settle(api, "tuned", "db-1", enabled=True)
        edit = {"drift": "Report", "settings": {"demotion": {"enabled": False}}}
        api.merge_patch(f"{POLICIES}/tuned", {"spec": edit})
        settle(api, "tuned", "db-1", enabled=False)

        rows = cli("history", "tuned", "-o", "json").data
        assert [(row["number"], row["current"]) for row in rows] == [(2, True), (1, False)]
        assert rows[0]["changes"] == ["drift: Correct -> Report", "settings.demotion.enabled: true -> false"]
        back = "drift: Report -> Correct\nsettings.demotion.enabled: false -> true\n"
        assert cli("diff", "tuned/1") == (Exit.WOULD_CHANGE, back, "")
        assert cli("diff", f"tuned/{rows[0]['revision']}") == (Exit.DONE, "nothing differs\n", "")
        assert "proven on 1 kind of node" in cli("history", "tuned").out

        answer = cli("rollback", "tuned", "--yes")
        assert answer.code == Exit.DONE
        assert answer.err == back
        assert "spec is that of revision 1" in answer.out
        settle(api, "tuned", "db-1", enabled=True)
        assert cli("rollback", "tuned", "--to", "3", "--yes").out == "tuned asks for revision 3 already\n"
        assert cli("rollback", "tuned", "--to", "9", "--yes").code == Exit.FAILED
        assert cli("status", "tuned", "-o", "json").data["policies"][0]["ready"] == "True"


def settle(api: Api, policy: str, node: str, *, enabled: bool) -> None:
    """Answer as the node's agent until the policy's rollout is over, with this value on the node."""

    def look() -> Json:
        state = api.get(f"{STATES}/{node}")
        wish = groups(state).get("demotion", {})
        if wish.get("settings") == {"enabled": enabled}:
            report(api, state, "Ready")
        found = api.get(f"{POLICIES}/{policy}")
        seen = found.get("status", {}).get("observedGeneration") == found["metadata"]["generation"]
        return found if seen and is_through(found) and wish.get("settings") == {"enabled": enabled} else {}

    poll(look, f"{policy} through with {enabled}")


# What is missing


@pytest.fixture(scope="module")
def viewer(bed: ControlPlane) -> Path:
    """Somebody who may read our kinds, and Nodes, and nothing else."""
    nodes = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list"]}
    return grant(bed, "viewer", [*VIEW, nodes])


@pytest.fixture(scope="module")
def nobody(bed: ControlPlane) -> Path:
    """Somebody who may do nothing."""
    return grant(bed, "nobody", [])


def test_who_may_only_look_sees_everything_but_the_switch(api: Api, cli: Cli, viewer: Path) -> None:
    make_policy(api, "alone", "n")
    make_state(api, "n")

    assert "Fleet switch: unknown" in cli("status", as_=viewer).out
    assert cli("nodes", as_=viewer).code == Exit.DONE
    assert cli("explain", "n", as_=viewer).code == Exit.DONE
    for command in (["pause", "alone"], ["stop", "off", "--yes"], ["history", "alone"]):
        answer = cli(*command, as_=viewer)
        assert answer.code == Exit.NO_RIGHTS
        assert "cannot" in answer.err
    assert api.get(f"{POLICIES}/alone")["spec"]["mode"] == "Apply"


def test_who_may_only_look_gets_a_report_that_says_what_it_could_not_read(api: Api, cli: Cli, viewer: Path) -> None:
    make_state(api, "db-1")

    answer = cli("report", "-f", "-", as_=viewer)

    assert answer.code == Exit.DONE
    for word in ("Could not be read", "revisions: ", "events: ", "Fleet switch: unknown", 'title="db-1"'):
        assert word in answer.out


@pytest.fixture(scope="module")
def people(bed: ControlPlane, helm: Helm) -> dict[str, Path]:
    """Who has the roles that the chart makes for the plugin."""
    names = {"viewers": "plugin-looks", "operators": "plugin-acts"}
    grant_plugin(bed, helm, **names)
    return {role: bed.kubeconfig_for(account(bed, name), name=name) for role, name in names.items()}


def test_the_charts_role_to_view_is_enough_for_every_command_that_looks(
    api: Api, cli: Cli, people: dict[str, Path]
) -> None:
    make_policy(api, "alone", "n")
    make_state(api, "n")
    looks = people["viewers"]

    for command in (["status"], ["status", "alone"], ["nodes"], ["explain", "n"], ["history", "alone"], ["profiles"]):
        assert cli(*command, as_=looks).code == Exit.DONE
    assert "Fleet switch: run" in cli("status", as_=looks).out
    assert "Could not be read" not in cli("report", "-f", "-", as_=looks).out
    assert [row for row in cli("doctor", "-o", "json", as_=looks).data if row["state"] == "unknown"] == []
    for command in (["pause", "alone"], ["stop", "off", "--yes"]):
        assert cli(*command, as_=looks).code == Exit.NO_RIGHTS
    assert api.get(f"{POLICIES}/alone")["spec"]["mode"] == "Apply"


def test_the_charts_role_to_operate_is_enough_for_every_command_that_acts(
    api: Api, cli: Cli, people: dict[str, Path], policy_file: Path
) -> None:
    make_policy(api, "alone", "n")
    acts = people["operators"]

    for command in (["pause", "alone"], ["resume", "alone"], ["stop", "hold", "--yes"], ["stop", "run", "--yes"]):
        assert cli(*command, as_=acts).code == Exit.DONE
    api.merge_patch(CONTROL, {"data": {"hold.0123456789abcdef": HOLD}})
    assert cli("release-hold", "epyc", "--yes", as_=acts).code == Exit.DONE
    assert "no other revision went well" in cli("rollback", "alone", "--yes", as_=acts).err
    assert "the API server was not asked" in cli("plan", "-f", str(policy_file), as_=acts).err


def test_who_may_do_nothing_is_told_what_is_missing(cli: Cli, nobody: Path) -> None:
    for command in (
        ["status"],
        ["nodes"],
        ["explain", "n"],
        ["rollback", "p"],
        ["report"],
        ["profiles"],
        ["profiles", "p"],
    ):
        answer = cli(*command, as_=nobody)
        assert answer.code == Exit.NO_RIGHTS
        assert "numamigration.dev" in answer.err
    assert cli("doctor", as_=nobody).code == Exit.DONE  # all of it unknown, and nothing known to be wrong


def test_doctor_names_what_a_half_installed_cluster_lacks(api: Api, cli: Cli) -> None:
    make_state(api, "db-1", "False", "NoDmaChannel")

    answer = cli("doctor", "-o", "json")
    states = {(row["check"], row["state"]) for row in answer.data}

    assert answer.code == Exit.FAILED
    assert {("API server", "ok"), ("CRDs", "ok"), ("node fence", "ok"), ("your rights", "ok")} <= states
    assert {("operator", "wrong"), ("leader", "wrong"), ("agents", "wrong"), ("channels", "wrong")} <= states


def test_a_support_bundle_has_the_objects_and_no_secret(api: Api, cli: Cli, tmp_path: Path) -> None:
    make_state(api, "db-1")
    make_policy(api, "alone", "db-1")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "hunter2"}}
    api.create(SECRETS, secret)
    variables = [{"name": "DB_PASSWORD", "value": "hunter2"}, {"name": "LEVEL", "value": "debug"}]
    container = {"name": "c", "image": "i", "env": variables}
    metadata = {"name": "op", "labels": {"app.kubernetes.io/name": "numa-migration-operator"}}
    api.create(ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "op"}})
    spec = {"serviceAccountName": "op", "automountServiceAccountToken": False, "containers": [container]}
    api.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    file = tmp_path / "bundle.tar.gz"

    assert cli("support-bundle", "-f", str(file)).code == Exit.DONE

    with tarfile.open(file) as tar:
        found = {Path(one.name).name: (tar.extractfile(one) or tar).read().decode() for one in tar}  # type: ignore[union-attr]
    api.delete(f"{PODS}/op", query={"gracePeriodSeconds": "0"})
    api.delete(f"{SECRETS}/s")
    api.delete(f"{ACCOUNTS}/op")
    assert {"README.txt", "missing.txt", "migrationpolicies.json", "nodemigrationstates.json", "pods.json"} <= set(
        found
    )
    assert not [name for name, text in found.items() if "hunter2" in text]
    assert "debug" in found["pods.json"]
    assert "managedFields" not in found["nodemigrationstates.json"]
    assert cli("support-bundle", "-f", str(file)).code == Exit.FAILED


@pytest.fixture
def without_profiles(shared_bed: SharedBed, api: Api) -> Iterator[None]:
    """The CRDs are of a release that had no MigrationProfiles yet."""
    path = f"{CRDS}/migrationprofiles.numamigration.dev"
    try:
        api.delete(path)
        api.wait_crd_gone(path)
        poll(lambda: not api.get_if_exists(PROFILES), "profiles being served no more")
        yield
    finally:
        shared_bed.put_back()


@pytest.mark.usefixtures("without_profiles")
@pytest.mark.parametrize("words", [["profiles"], ["profiles", "v6-0"]], ids=" ".join)
def test_where_only_profiles_are_unknown_it_says_that_the_crds_are_older(words: list[str], cli: Cli) -> None:
    answer = cli(*words)

    assert answer.code == Exit.NOT_INSTALLED
    assert "does not know MigrationProfile: the CRDs here are older" in answer.err


@pytest.mark.usefixtures("without_profiles")
def test_where_profiles_are_unknown_no_other_command_needs_them(
    api: Api, cli: Cli, policy_file: Path, tmp_path: Path
) -> None:
    make_state(api, "db-1")
    policy_file.write_text(TUNED_FILE)
    plan = cli("plan", "-f", str(policy_file))
    api.create(POLICIES, yaml.safe_load(TUNED_FILE))
    bundle = str(tmp_path / "bundle.tar.gz")

    assert plan.code == Exit.WOULD_CHANGE
    for words in (["history", "planned"], ["explain", "db-1"], ["support-bundle", "-f", bundle]):
        assert cli(*words).code == Exit.DONE
    assert "Could not be read" not in cli("report", "-f", "-").out
    crds = [row for row in cli("doctor", "-o", "json").data if row["check"] == "CRDs"]
    assert ("wrong", "migrationprofiles.numamigration.dev is missing") in {
        (row["state"], row["message"]) for row in crds
    }


@pytest.fixture
def who_knows_no_profiles(bed: ControlPlane) -> Path:
    """Somebody with a role of a release that had no MigrationProfiles yet."""
    kinds = {"apiGroups": ["numamigration.dev"], "resources": ["migrationpolicies", "nodemigrationstates"]}
    nodes = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list"]}
    return grant(bed, "older", [kinds | {"verbs": ["get", "list"]}, nodes])


def test_who_may_not_read_profiles_gets_a_plan_of_what_is_not_tuned(
    cli: Cli, policy_file: Path, who_knows_no_profiles: Path
) -> None:
    assert cli("plan", "-f", str(policy_file), as_=who_knows_no_profiles).code == Exit.DONE
    policy_file.write_text(TUNED_FILE)
    assert cli("plan", "-f", str(policy_file), as_=who_knows_no_profiles).code == Exit.NO_RIGHTS
    assert "profiles: " in cli("report", "-f", "-", as_=who_knows_no_profiles).out


def test_without_our_kinds_every_command_says_that_they_are_missing(shared_bed: SharedBed, cli: Cli) -> None:
    shared_bed.empty()
    try:
        for command in (["status"], ["nodes"], ["explain", "n"], ["pause", "p"], ["report"]):
            answer = cli(*command)
            assert answer.code == Exit.NOT_INSTALLED
            assert "the CRDs are not installed here" in answer.err
        assert ("CRDs", "wrong") in {(row["check"], row["state"]) for row in cli("doctor", "-o", "json").data}
    finally:
        shared_bed.put_back()

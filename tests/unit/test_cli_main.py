# SPDX-License-Identifier: Apache-2.0
"""The command line itself: exit codes, errors that say what to do, completion. No cluster is needed for these."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from numamigration_cli.__main__ import complete, main
from numamigration_cli.app import COMMANDS
from numamigration_cli.exits import EXIT_MEANING, Exit

PAGE = Path(__file__).parents[2] / "docs" / "kubectl-plugin.md"
KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: here
contexts: [{{name: here, context: {{cluster: c, user: u}}}}]
clusters: [{{name: c, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
users: [{{name: u, user: {{}}}}]
"""


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "NUMAMIGRATION_NAMESPACE", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def nobody(tmp_path: Path) -> Iterator[Path]:
    """A kubeconfig of a server that is not there: its port is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        path = tmp_path / "kubeconfig"
        path.write_text(KUBECONFIG.format(port=taken.getsockname()[1]))
        yield path


def test_without_a_kubeconfig_it_says_where_it_looked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == Exit.NO_CLUSTER
    assert "no kubeconfig at ~/.kube/config" in capsys.readouterr().err


def test_a_context_that_is_not_there_is_named(nobody: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nodes", "--kubeconfig", str(nobody), "--context", "prod"]) == Exit.NO_CLUSTER
    assert "prod" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_told_once_and_in_words(nobody: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--kubeconfig", str(nobody)]) == Exit.NO_CLUSTER

    told = capsys.readouterr().err
    assert told.startswith("error: the API server http://127.0.0.1:")
    assert "look at --context" in told
    assert "Traceback" not in told
    assert told.count("does not answer") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["statsu"],
        [],
        ["explain"],
        ["nodes", "--reason", "Hungry"],
        ["status", "-o", "xml"],
        ["stop"],
        ["stop", "now"],
        ["plan"],
        ["diff", "7"],
    ],
    ids=" ".join,
)
def test_wrong_usage_has_a_code_of_its_own(arguments: list[str], nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(nobody))

    assert main(arguments) == Exit.USAGE


def test_a_broken_policy_file_is_told_with_line_and_column(
    nobody: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("kind: MigrationPolicy\nspec: {a: [}\n")

    assert main(["plan", "-f", str(file), "--kubeconfig", str(nobody)]) == Exit.BAD_FILE
    assert f"{file}:2:12: no YAML" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"kind: Pod\n"], ids=["no UTF-8", "empty", "no policy"])
def test_a_file_that_is_no_policy_is_a_broken_one(content: bytes, nobody: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_bytes(content)

    assert main(["plan", "-f", str(file), "--kubeconfig", str(nobody)]) == Exit.BAD_FILE


def test_a_file_that_is_not_there_is_a_broken_one(nobody: Path) -> None:
    assert main(["plan", "-f", "/nowhere.yaml", "--kubeconfig", str(nobody)]) == Exit.BAD_FILE


def test_help_needs_neither_a_cluster_nor_what_talks_to_one() -> None:
    """In a process of its own, where nothing is imported yet."""
    heavy = "[name for name in ('aiohttp', 'kubernetes', 'pydantic', 'rich', 'yaml') if name in sys.modules]"
    code = (
        "import sys; from numamigration_cli.__main__ import main; "
        f"codes = [main([*words, '--help']) for words in ([], *([name] for name in {list(COMMANDS)}))]; "
        f"sys.exit(repr((codes, {heavy})) if any(codes) or {heavy} else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_every_command_has_a_short_help_that_80_columns_hold(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    assert main(["--help"]) == Exit.DONE
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[lines.index("Commands:") + 1 :]] == list(COMMANDS)
    assert not [line for line in lines[1:] if line.endswith("...") or len(line) > 80]


def test_output_that_nobody_reads_ends_quietly_as_a_shell_expects() -> None:
    """``kubectl numamigration --help | head -0``: what closes the pipe early is no error."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "numamigration_cli", "--help"], check=False, stdout=writing, stderr=subprocess.PIPE
        )
    finally:
        os.close(writing)

    assert (done.returncode, done.stderr) == (Exit.BROKEN_PIPE, b"")


def test_kubectl_is_told_the_words_that_may_follow(capsys: pytest.CaptureFixture[str]) -> None:
    assert complete(["sta"]) == 0
    assert capsys.readouterr().out == "status\tPolicies: on or not, where not, why, how to undo it\n:4\n"


def test_a_word_of_a_closed_set_is_completed(capsys: pytest.CaptureFixture[str]) -> None:
    complete(["nodes", "--dialect", "V6"])

    assert capsys.readouterr().out == "V6\nV6-SDXI\n:4\n"


def test_a_file_is_left_to_the_shell(capsys: pytest.CaptureFixture[str]) -> None:
    complete(["plan", "-f", ""])

    assert capsys.readouterr().out == ":0\n"


def test_names_that_cannot_be_asked_for_are_none(nobody: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert complete(["explain", "--kubeconfig", str(nobody), ""]) == 0
    assert capsys.readouterr().out == ":4\n"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_a_shell_gets_what_makes_it_complete_words(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == Exit.DONE
    assert "_NUMAMIGRATION_COMPLETE" in capsys.readouterr().out


def test_the_page_has_every_exit_code_with_its_meaning() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)

    assert rows == [(str(int(code)), meaning) for code, meaning in EXIT_MEANING.items()]


def test_the_page_has_every_command() -> None:
    told = set(re.findall(r"^\| `([a-z-]+)[ `]", PAGE.read_text(), re.MULTILINE))

    assert told == set(COMMANDS)

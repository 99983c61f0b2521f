# SPDX-License-Identifier: Apache-2.0
"""What documents name exists: each kind of name is noticed when it is wrong, and only then."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from scripts import document_names as d
from scripts import known_names as known

pytestmark = pytest.mark.uncounted

Page = Callable[[str], Path]


@pytest.fixture
def page(tmp_path: Path) -> Page:
    """Return a page with this text."""

    def written(text: str) -> Path:
        path = tmp_path / "page.md"
        path.write_text(text)
        return path

    return written


def texts(findings: Iterable[d.Finding]) -> list[str]:
    return [f"{found.line}: {found.text}" for found in findings]


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        pytest.param("numamigration_operator_leader", "numamigration_operator_leaders", id="metric"),
        pytest.param(
            "numamigration_operator_decision_delay_seconds_bucket",
            "numamigration_operator_leader_bucket",
            id="series of a histogram",
        ),
        pytest.param("NUMAMIGRATION_AGENT_LOG_LEVEL", "NUMAMIGRATION_LOGLEVEL", id="variable"),
        pytest.param("--fence-required", "--fence", id="flag"),
        pytest.param("make demo KEEP=1", "make demonstration", id="target"),
        pytest.param("numamigration-operator uninstall", "numamigration-operator remove", id="command"),
        pytest.param("numamigration-agent-fence", "numamigration-fence", id="object"),
        pytest.param("numamigration.dev/v1alpha1", "numamigration.dev/v1", id="API version"),
        pytest.param("migrationpolicies.numamigration.dev", "policies.numamigration.dev", id="CRD"),
        pytest.param("/sys/module/dcbm/parameters/reason_mask", "/sys/module/dcbm/reason_mask", id="kernel file"),
        pytest.param("NoDmaChannel", "NoDMAChannel", id="reason"),
        pytest.param("Conflicted", "Conflict", id="condition"),
        pytest.param("MigrationPolicy", "MigrationPolicies", id="kind"),
        pytest.param("spec.rollout.canary.nodes", "spec.canary.nodes", id="whole field"),
        pytest.param("canary.soakSeconds", "canary.soak", id="end of a field"),
        pytest.param("maxUnproven", "maxUnprovenNodes", id="last name of a field"),
        pytest.param("foliosFailedShare", "foliosFailedRatio", id="value"),
        pytest.param("agent.hostWrite.sysKernel=true", "agent.hostWrite.sys=true", id="chart value"),
        pytest.param("fence_required", "fence_needed", id="setting"),
        pytest.param("syscall_or_cpuset", "syscall_or_cpu", id="migration reason"),
        pytest.param("mode: Paused", "mode: Pause", id="value of a field"),
        pytest.param('verification: "Off"', "verification: Never", id="value in quotes"),
        pytest.param("reasons: [damon, demotion]", "reasons: [damon, DEMOTION]", id="list of values"),
        pytest.param("soakSeconds: 0", "soakMinutes: 0", id="field with a value"),
        pytest.param("fleet: off", "fleet: stop", id="fleet switch"),
        pytest.param("docs/install.md", "docs/installation.md", id="path"),
        pytest.param(
            "tests/unit/test_document_names.py::test_what_looks_like_none_of_ours_is_not_judged",
            "tests/unit/test_document_names.py::test_nothing",
            id="test",
        ),
    ],
)
def test_a_name_in_code_font_has_to_exist(page: Page, right: str, wrong: str) -> None:
    assert texts(d.name_findings(page(f"# T\n\nSee `{right}`.\n"))) == []
    assert len(texts(d.name_findings(page(f"# T\n\nSee `{wrong}`.\n")))) == 1


@pytest.mark.parametrize("word", ["hold", "0%", "kubectl get nodes", "dma0chan1", "…", "CONFIG_X=m", "/var/lib/x"])
def test_what_looks_like_none_of_ours_is_not_judged(page: Page, word: str) -> None:
    assert texts(d.name_findings(page(f"`{word}`\n"))) == []


def test_a_command_that_the_plugin_does_not_have_is_found(page: Page) -> None:
    (found,) = texts(d.name_findings(page("`kubectl numamigration frobnicate --all`\n")))

    assert found.startswith("1: `frobnicate` is no command of the plugin")


def test_a_finding_tells_the_nearest_name() -> None:
    assert d.span_finding("NoDMAChannel") == "`NoDMAChannel` is no reason, condition, kind or value; `NoDmaChannel` is"
    assert d.span_finding("onFailure: Stop") == "`Stop` is no value of onFailure: Halt, Rollback"


def test_a_finding_is_a_line_that_editors_take() -> None:
    assert str(d.Finding(known.ROOT / "docs" / "x.md", 7, "wrong")) == "docs/x.md:7: wrong"


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("$ make test-everything", id="target"),
        pytest.param("$ cd x && make nothing", id="target behind another command"),
        pytest.param("$ curl localhost:8081/metrics | grep numamigration_operator_leading", id="metric"),
        pytest.param("$ NUMAMIGRATION_LEVEL=debug numamigration-operator", id="variable"),
        pytest.param("$ kubectl get migrationpolicys", id="resource"),
        pytest.param("$ kubectl get migpols", id="short name"),
        pytest.param("$ kubectl get nms -o jsonpath='{.status.dialects}'", id="field"),
        pytest.param("$ kubectl delete configmap numamigration-controls", id="object"),
        pytest.param("$ kubectl numamigration frobnicate", id="command of the plugin"),
    ],
)
def test_a_name_in_a_command_has_to_exist(page: Page, line: str) -> None:
    assert len(texts(d.name_findings(page(f"```console\n{line}\n```\n")))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "$ make demo KEEP=1",
        "$ kubectl get migpol,nms",
        "$ kubectl get numamigration",
        "$ kubectl get nms -o custom-columns='N:.metadata.name,W:.status.plans[*].wouldChange'",
        "$ kubectl delete configmap numamigration-control --namespace numamigration-system",
    ],
)
def test_commands_that_are_right_are_let_through(page: Page, line: str) -> None:
    assert texts(d.name_findings(page(f"```console\n{line}\n```\n"))) == []


@pytest.mark.parametrize("words", known.OTHERS.values(), ids=known.OTHERS)
def test_a_word_of_others_is_in_code_font_somewhere(words: frozenset[str]) -> None:
    text = "".join(path.read_text() for path in d.PAGES)
    used = {word for span in re.findall(r"`([^`\n]+)`", text) for word in (span, re.split("[:/=]", span)[0])}

    assert words - used == set()


def test_a_word_of_others_is_none_of_ours() -> None:
    ours = known.field_paths() | known.vocabulary() | known.settings() | known.kernel_words() | known.chart_values()

    assert known.of_others() & ours == set()


# --- objects ---------------------------------------------------------------------------------------------------------

POLICY = """\
apiVersion: numamigration.dev/v1alpha1
kind: MigrationPolicy
metadata: {name: x}
spec:
  nodeSelector: {}
  settings: {demotion: {enabled: true}}
"""


def yaml_page(page: Page, text: str) -> list[str]:
    return texts(d.object_findings(page(f"# T\n\n```yaml\n{text}```\n")))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(POLICY, id="whole object"),
        pytest.param("rollout: {maxUnproven: 2}\n", id="part of a policy"),
        pytest.param("spec:\n  onDelete: Keep\n", id="spec of a part"),
        pytest.param("securityContext: {runAsUser: 0}\n", id="of somebody else"),
        pytest.param("apiVersion: v1\nkind: ConfigMap\ndata: {fleet: 'off'}\n", id="object of another kind"),
        pytest.param("- one\n", id="list"),
    ],
)
def test_legal_yaml_is_let_through(page: Page, text: str) -> None:
    assert yaml_page(page, text) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param(POLICY.replace("enabled", "on"), "spec.settings.demotion", id="unknown field"),
        pytest.param(POLICY.replace("true", "'yes'"), "valid boolean", id="wrong type"),
        pytest.param(POLICY + "  onDelete: Forget\n", "spec.onDelete", id="unknown value"),
        pytest.param(POLICY.replace("v1alpha1", "v1"), "apiVersion", id="another version"),
        pytest.param("settings: {balancing: {mode: Off}}\n", "spec.settings.balancing.mode", id="bare Off"),
        pytest.param("spec:\n  rollout: {canary: {nodes: 0}}\n", "spec.rollout.canary.nodes", id="out of range"),
        pytest.param("a: [\n", "no YAML", id="broken"),
    ],
)
def test_yaml_that_the_models_refuse_is_found(page: Page, text: str, told: str) -> None:
    (found,) = yaml_page(page, text)

    assert told in found


# --- links and marks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "link",
    [
        "[x](page.md)",
        "[x](#the-fleet-switch)",
        "[x](page.md#read-statusrollout)",
        "[x](https://example.com/nothing)",
        "`[x](nothing.md)`",
    ],
)
def test_links_that_lead_somewhere_are_let_through(page: Page, link: str) -> None:
    written = page(f"# T\n\n## The fleet switch\n\n### Read `status.rollout`\n\n{link}\n")

    assert texts(d.link_findings(written)) == []


@pytest.mark.parametrize(
    ("link", "told"),
    [
        pytest.param("[x](nothing.md)", "1: nothing.md is not there", id="no page"),
        pytest.param("[`x` of [y]](../nothing.py)", "1: ../nothing.py is not there", id="no file"),
        pytest.param("[x](#nothing)", "1:  has no heading #nothing", id="no heading"),
    ],
)
def test_links_that_lead_nowhere_are_found(page: Page, link: str, told: str) -> None:
    assert texts(d.link_findings(page(f"{link}\n"))) == [told]


OURS = "apiVersion: numamigration.dev/v1alpha1\nkind: MigrationPolicy\n"


@pytest.mark.parametrize(
    ("mark", "language", "text"),
    [
        pytest.param("run", "console", "$ kubectl get nms\nNAME\n", id="run, with output"),
        pytest.param("demo: x", "console", "NAME\n", id="of a demo"),
        pytest.param("not run: no Pod is there", "console", "$ kubectl logs x\n", id="not run, and why"),
        pytest.param("", "console", "$ make x\n$ sudo make y A=1\n$ for n in 1 2; do make z; done\n", id="targets"),
        pytest.param("", "yaml", OURS, id="an object of ours"),
        pytest.param("example: x.yaml", "yaml", OURS, id="an example"),
        pytest.param("not run: a part", "yaml", "a: 1\n", id="not applied, and why"),
        pytest.param("", "text", "a drawing\n", id="no command"),
        pytest.param("", "python run", "1\n", id="another language"),
    ],
)
def test_a_block_that_something_tries_is_let_through(page: Page, mark: str, language: str, text: str) -> None:
    above = f"<!-- {mark} -->\n" if mark else ""

    assert texts(d.mark_findings(page(f"{above}```{language}\n{text}```\n"))) == []


@pytest.mark.parametrize(
    ("mark", "language", "text", "told"),
    [
        pytest.param("", "console", "$ kubectl get nms\n", "run by no test; ", id="no mark"),
        pytest.param("", "sh", "make x\n", "run by no test; ", id="a script without a mark"),
        pytest.param("", "yaml", "kind: Pod\n", "no object of ours, which a test applies; ", id="another object"),
        pytest.param("", "yaml", f"{OURS}---\n- 1\n", "no object of ours, which a test applies; ", id="and a list"),
        pytest.param("not run", "sh", "x\n", "marked as not run, and not why", id="no reason"),
        pytest.param("not run: ", "sh", "x\n", "marked as not run, and not why", id="an empty reason"),
        pytest.param("ran", "sh", "x\n", "no mark of a block of sh: ran", id="no mark of ours"),
        pytest.param("run", "yaml", OURS, "no mark of a block of yaml: run", id="mark of another language"),
        pytest.param(
            "run", "sh", "x\n", "no mark of a block of sh: run", id="a script, whose first failures none sees"
        ),
        pytest.param("cluster", "sh", "x\n", "marked to be run on a whole cluster, ", id="followed by nobody"),
        pytest.param("run", "console", "NAME\n", "3: no command of a console: NAME", id="only output"),
        pytest.param("", "bash", "x\n", "bash is no language of blocks here: ", id="another shell"),
        pytest.param("", "text", "$ kubectl get nms\n", "commands in a block of text", id="commands as text"),
    ],
)
def test_a_block_that_nothing_tries_is_found(page: Page, mark: str, language: str, text: str, told: str) -> None:
    above = f"<!-- {mark} -->\n" if mark else "\n"
    (found,) = texts(d.mark_findings(page(f"{above}```{language}\n{text}```\n")))

    assert found.startswith(f"3: {told}")


def test_a_command_outside_of_a_block_is_found(page: Page) -> None:
    written = page("Type\n\n    kubectl apply -f x\n\n    a quotation\n")

    assert texts(d.mark_findings(written)) == ["3: a command outside of a block: kubectl apply -f x"]

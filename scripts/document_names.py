# SPDX-License-Identifier: Apache-2.0
"""``python -m scripts.document_names``: what documents name in code font exists, their objects are legal, links lead.

Each block of a shell or of YAML is tried by some test, or its mark says why none does.

People type what they read in code font, or search for it. A word that looks like one of ours (a metric, a field, a
reason, …) has to be one, or one of those that ``known_names.OTHERS`` lists as somebody else's. Prints a line for each
finding and exits 1 when there is one.

Records of the past keep the names of their day (docs/decisions, CHANGELOG.md); only their links are looked at.
"""

from __future__ import annotations

import ast
import difflib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml
from markdown.extensions.toc import slugify
from pydantic import BaseModel, ValidationError

from numamigration_api import generate
from numamigration_api import vocabulary as v
from numamigration_api.models import MigrationPolicy
from numamigration_api.models.policy import MigrationPolicySpec
from scripts import known_names as known
from tests.testbed import pages
from tests.testbed.pages import Block, blocks, documents, lines

ROOT: Final = known.ROOT
PAGES: Final = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    known.CHART / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "runbooks").glob("*.md")),
)
RECORDS: Final = (ROOT / "CHANGELOG.md", *sorted((ROOT / "docs" / "decisions").glob("*.md")))
FOLDERS: Final = "benchmarks|charts|crds|deploy|docs|examples|node-agent|operator|requirements|scripts|tests"
COMMANDS: Final = ("console", "sh", "text")
KINDS: Final[Mapping[str, type[BaseModel]]] = {kind: model for model, kind, *_ in generate.KINDS}
ANY_POLICY: Final = {"nodeSelector": {}, "settings": {"demotion": {"enabled": True}}}
"""What makes a policy of a part of one."""
_SPAN: Final = re.compile(r"`([^`\n]+)`")
_LINK: Final = re.compile(r"(?<!!)\[(?:[^\[\]\n]|\[[^\[\]\n]*\])*\]\((?P<to>[^)\s]+)\)")
_MARKUP: Final = re.compile(r"`|\*\*|\[([^\]]*)\]\([^)]*\)")


class Finding(NamedTuple):
    """One thing that is wrong, and where."""

    page: Path
    line: int
    text: str

    def __str__(self) -> str:
        """As editors take it."""
        return f"{self.page.relative_to(ROOT)}:{self.line}: {self.text}"


class Rule(NamedTuple):
    """What looks like this has to be one of these.

    Attributes:
        what: what it is, as a finding says it.
        pattern: its group ``name`` is looked up.
    """

    what: str
    pattern: re.Pattern[str]
    names: frozenset[str]


def _rule(what: str, pattern: str, *names: frozenset[str]) -> Rule:
    return Rule(what, re.compile(pattern), frozenset().union(*names))


def _heads(names: frozenset[str]) -> str:
    return "|".join(sorted({re.escape(name.partition(".")[0]) for name in names}))


_LEAVES: Final = frozenset(path.rpartition(".")[2] for path in known.field_paths() | known.chart_values())
_DOTTED: Final = known.field_paths() | known.chart_values()
_PACKAGES: Final = frozenset(
    {"numamigration_api", "numamigration_agent", "numamigration_cli", "numamigration_operator"}
)
_OTHERS: Final = known.of_others()

SPANS: Final = (
    _rule("metric", r"(?P<name>(?:numamigration|process)_\w+)", known.metric_names(), _PACKAGES),
    _rule("environment variable", r"(?P<name>NUMAMIGRATION_\w+)", known.variables()),
    _rule("flag", r"(?P<name>--[a-z-]+)", known.flags(), _OTHERS),
    _rule("target of the Makefile", r"make (?P<name>[a-z][a-z-]*)(?: .*)?", known.targets()),
    _rule("command of the operator", r"numamigration-operator (?P<name>[a-z]+).*", known.subcommands()),
    _rule("command of the plugin", r"kubectl numamigration (?P<name>\S+).*", known.plugin_commands()),
    _rule("object or program", r"(?P<name>numamigration-[a-z.-]+)(?: .*)?", known.object_names()),
    _rule("name of the API group", r"(?P<name>\S*numamigration\.dev\S*)", known.group_names()),
    _rule(
        "kernel file of the tables",
        r"(?P<name>/(?:sys|proc)/\S*(?:dcbm|cpu_mt|offload|numa|demotion)\S*)",
        known.kernel_files(),
    ),
    _rule(
        "reason, condition, kind or value", r"(?P<name>[A-Z]\w*[a-z]\w*)", known.vocabulary(), known.alerts(), _OTHERS
    ),
    _rule("field or chart value", rf"(?P<name>(?:{_heads(_DOTTED)})\.\w[\w.]*)(?:[/=].*)?", _DOTTED, _OTHERS),
    _rule("field or value", r"(?P<name>[a-z]+[A-Z]\w*)", _LEAVES, known.vocabulary(), _OTHERS),
    _rule(
        "setting, migration reason or kernel file",
        r"(?P<name>[a-z]\w*_\w+)",
        known.settings(),
        known.vocabulary(),
        known.kernel_words(),
        known.labels(),
        _OTHERS,
    ),
)
"""For whole spans; the first rule that fits decides."""

IN_BLOCKS: Final = (
    _rule("metric", r"\b(?P<name>numamigration_[a-z_]+)\b(?![./])", known.metric_names(), _PACKAGES),
    _rule("environment variable", r"\b(?P<name>NUMAMIGRATION_\w+)", known.variables()),
    _rule("target of the Makefile", r"(?:^|[;&|(] *|\$ )make (?P<name>[a-z][a-z-]*)", known.targets()),
    _rule("command of the plugin", r"kubectl numamigration (?P<name>\S+)", known.plugin_commands()),
    _rule("object or program", r"\b(?P<name>numamigration-[a-z-]*[a-z])\b", known.object_names()),
    _rule(
        "resource",
        r"\b(?P<name>migpol\w*|nms|numamigration|[a-z]*migration(?:polic|state)\w*)\b(?![-./])",
        known.resources(),
    ),
    _rule("field", r"(?<![\w/])\.(?P<name>(?:spec|status)(?:\.\w+|\[[\d*]*\])+)", known.field_paths(), _OTHERS),
)
"""For what stands anywhere in the lines of commands."""


# --- names -----------------------------------------------------------------------------------------------------------


def span_finding(span: str) -> str | None:
    """Return what is wrong with the text of a code span, if anything."""
    if path := re.fullmatch(rf"(?P<path>(?:{FOLDERS})/[\w./-]*)(?:::(?P<test>\w+))?(?: .*)?", span):
        return _path_finding(path["path"], path["test"])
    if assignment := re.fullmatch(r"(?P<key>[A-Za-z][\w.]*): (?P<value>[\w%.\"-]+|\[[\w, ]*\])", span):
        return _assignment_finding(assignment["key"], re.findall(r"[\w%.-]+", assignment["value"]))
    for rule in SPANS:
        if found := rule.pattern.fullmatch(span):
            return unknown(rule, found["name"])
    return None


def unknown(rule: Rule, name: str) -> str | None:
    """Return that a name is none of a rule's, with the nearest one that is."""
    name = re.sub(r"\[[\d*]*\]", "", name)
    if name in rule.names:
        return None
    near = difflib.get_close_matches(name, rule.names, 1)
    return f"`{name}` is no {rule.what}" + (f"; `{near[0]}` is" if near else "")


def _path_finding(path: str, test: str | None) -> str | None:
    if not (ROOT / path).exists():
        return f"`{path}` is not there"
    if test and test not in _functions(path):
        return f"`{path}` has no {test}"
    return None


@cache
def _functions(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


_KEYS: Final = _rule("field", r"", known.field_paths(), frozenset({v.FLEET_KEY}), _OTHERS)


def _assignment_finding(key: str, values: list[str]) -> str | None:
    legal = {v.FLEET_KEY: frozenset(v.FleetSwitch), **known.field_values()}.get(key.rpartition(".")[2])
    if legal and (wrong := [value for value in values if value not in legal]):
        return f"`{wrong[0]}` is no value of {key}: {', '.join(sorted(legal))}"
    return unknown(_KEYS, key)


def name_findings(page: Path) -> Iterator[Finding]:
    """Yield names in a page's code spans and commands that do not exist."""
    for line in lines(page):
        if not line.block:
            texts = (span_finding(span) for span in _SPAN.findall(line.text))
        elif line.language in COMMANDS:
            texts = (unknown(rule, found["name"]) for rule in IN_BLOCKS for found in rule.pattern.finditer(line.text))
        else:
            continue
        yield from (Finding(page, line.number, text) for text in texts if text)


# --- objects ---------------------------------------------------------------------------------------------------------


def object_findings(page: Path) -> Iterator[Finding]:
    """Yield blocks of YAML that cannot be read, and objects and parts of policies that the models refuse."""
    try:
        for line, document in documents(page):
            if text := _refusal(document):
                yield Finding(page, line, text)
    except yaml.YAMLError as error:
        yield Finding(page, 1, f"a block is no YAML: {error}")


def _refusal(document: Any) -> str | None:
    """Return why the models refuse one document, if they know it."""
    if not isinstance(document, dict):
        return None
    model, content = KINDS.get(str(document.get("kind"))), {key: document.get(key) for key in ("spec", "status")}
    if model is None:
        part = document.get("spec", document) if "kind" not in document else {}
        if not isinstance(part, dict) or not part or not set(part) <= _SPEC_FIELDS:
            return None
        model, content = MigrationPolicy, {"spec": ANY_POLICY | part}
    elif document.get("apiVersion") != v.API_VERSION:
        return f"apiVersion of {document['kind']} is {v.API_VERSION}"
    try:
        model.model_validate_json(
            json.dumps({key: one for key, one in content.items() if one is not None}), strict=True
        )
    except ValidationError as error:
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
    return None


_SPEC_FIELDS: Final = frozenset(str(field.alias) for field in MigrationPolicySpec.model_fields.values())


# --- marks -----------------------------------------------------------------------------------------------------------

LANGUAGES: Final = (*pages.SHELLS, "yaml", "text", "diff", "python")
FOLLOWED: Final = (ROOT / "docs" / "install.md", *(ROOT / "docs" / "runbooks").glob("*.md"))
"""Pages that tests of tests/cluster follow: installing.py there, and tests/unit/test_install_page.py of the first."""
_TYPED: Final = re.compile(r" *(?:\$ )?(?:sudo )?(?:kubectl|helm|make|podman|docker) .*")
_MAKE: Final = re.compile(r"(?:for \w+ in [^;]+; do )?(?:sudo )?make .*")
"""What tests call by themselves, or people do for hours; the target is looked up as a name."""


def mark_findings(page: Path) -> Iterator[Finding]:
    """Yield blocks that nothing tries though no mark says why, and commands that stand where none is looked for."""
    for line in lines(page):
        if line.block == 0 and line.text.startswith("    ") and _TYPED.fullmatch(line.text):
            yield Finding(page, line.number, f"a command outside of a block: {line.text.strip()}")
    for block in blocks(page):
        if text := _mark_finding(page, block):
            yield Finding(page, block.line, text)


def _mark_finding(page: Path, block: Block) -> str | None:
    """Return what is wrong with a block's mark, or with having none."""
    if block.language.split(" ")[0] not in LANGUAGES:
        return f"{block.language} is no language of blocks here: {', '.join(LANGUAGES)}"
    if block.mark and block.language not in pages.MARKS.get(block.kind, ()):
        return f"no mark of a block of {block.language}: {block.mark}"
    if block.kind == pages.NOT_RUN and not block.mark.partition(": ")[2].strip():
        return "marked as not run, and not why"
    if block.kind == pages.CLUSTER and page not in FOLLOWED:
        return "marked to be run on a whole cluster, and no test there follows the page"
    if block.language == "yaml":
        return _yaml_finding(block)
    return _shell_finding(block)


def _yaml_finding(block: Block) -> str | None:
    documents = () if block.mark else yaml.safe_load_all(block.text)
    if all(isinstance(one, dict) and one.get("apiVersion") == v.API_VERSION for one in documents):
        return None
    return "no object of ours, which a test applies; say why not by the mark `not run: WHY`"


def _shell_finding(block: Block) -> str | None:
    if block.language not in pages.SHELLS:
        return "commands in a block of text" if any(map(_TYPED.fullmatch, block.text.splitlines())) else None
    if block.mark and block.kind != pages.RUN:
        return None
    if block.language == "console":
        try:
            typed = pages.steps(block)
        except ValueError as error:
            return str(error)
        if block.mark or all(_MAKE.fullmatch(step.text) for step in typed):
            return None
    return "run by no test; say why not by the mark `not run: WHY`, or have a console run by `run`"


# --- links -----------------------------------------------------------------------------------------------------------


def link_findings(page: Path) -> Iterator[Finding]:
    """Yield links within the repository that lead nowhere."""
    for line in lines(page):
        for found in () if line.block else _LINK.finditer(_SPAN.sub("", line.text)):
            path, _, anchor = found["to"].partition("#")
            target = page.parent / path if path else page
            if re.match(r"[a-z]+:", path):
                continue
            if not target.exists():
                yield Finding(page, line.number, f"{path} is not there")
            elif anchor and anchor not in anchors(target):
                yield Finding(page, line.number, f"{path} has no heading #{anchor}")


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return what a link to a heading of a page may end with."""
    heads = (re.fullmatch(r"#+ (.*?) *", line.text) for line in lines(page) if not line.block)
    return frozenset(slugify(_MARKUP.sub(r"\1", head[1]), "-") for head in heads if head)


def findings() -> Iterator[Finding]:
    """Yield all that is wrong."""
    for page in PAGES:
        yield from name_findings(page)
        yield from object_findings(page)
        yield from mark_findings(page)
    for page in (*PAGES, *RECORDS):
        yield from link_findings(page)


def main() -> int:
    """Print what is wrong; 1 when anything is."""
    found = sorted(findings())
    print("\n".join(map(str, found)), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""A file of policies as a person writes it, and where in it something is wrong: line and column, from 1.

Schema and bounds are those of the models, as the API server has them. Its CEL rules only it can try
(``commands.plan`` asks it); what it finds fault with is shown in the file too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from numamigration_api.models import MigrationPolicySpec
from numamigration_api.vocabulary import API_VERSION, POLICY_KIND

Path = Sequence[str | int]

PROBLEMS_SHOWN_MAX: Final = 20
QUOTES: Final = 'quote it: bare, YAML reads On, Off, Yes and No as true and false, for example "Off"'


class Problem(NamedTuple):
    """What is wrong, and where."""

    line: int
    column: int
    message: str


class BadFileError(Exception):
    """A file that is no policy."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(f"{len(problems)} problems")
        self.problems = sorted(problems)

    def told(self, name: str) -> str:
        """Return every problem, a line each, as compilers say it."""
        shown = [f"{name}:{one.line}:{one.column}: {one.message}" for one in self.problems[:PROBLEMS_SHOWN_MAX]]
        more = len(self.problems) - len(shown)
        return "\n".join([*shown, *([f"and {more} more"] if more > 0 else [])])


class Document(NamedTuple):
    """One policy of a file.

    Attributes:
        body: as it stands there.
        spec: with the defaults of the API server.
        root: what knows where each part stands.
    """

    body: dict[str, Any]
    spec: dict[str, Any]
    root: yaml.Node

    @property
    def name(self) -> str:
        """The policy's."""
        return str(self.body["metadata"]["name"])

    def problem(self, path: Path, message: str) -> Problem:
        """Return a problem with the part at `path`, or with what of it is there."""
        mark = _mark(self.root, path)
        return Problem(mark.line + 1, mark.column + 1, message)


def read_policies(text: str) -> tuple[list[Document], list[str]]:
    """Return the policies of a file, and the kinds of the other objects in it.

    Raises:
        BadFileError: it is no YAML, or something of a policy is wrong.
    """
    try:
        roots = list(yaml.compose_all(text, yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        raise BadFileError([Problem(*where, f"no YAML: {error.problem or error.context}")]) from error
    except yaml.YAMLError as error:
        raise BadFileError([Problem(1, 1, f"no YAML: {' '.join(str(error).split())}")]) from error
    found, others, problems = [], [], list[Problem]()
    for root in roots:
        body = _plain(root)
        kind = body.get("kind") if isinstance(body, dict) else type(body).__name__
        if kind != POLICY_KIND:
            others.append(str(kind))
            continue
        document = Document(body, {}, root)
        wrong = [*_twice(document, root), *_envelope(document)]
        if not wrong:
            document, wrong = _with_spec(document)
        problems += wrong
        found.append(document)
    if problems:
        raise BadFileError(problems)
    return found, others


def _plain(root: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or root.start_mark
        raise BadFileError([Problem(mark.line + 1, mark.column + 1, f"no YAML: {error.problem}")]) from error
    finally:
        loader.dispose()


def _twice(document: Document, node: yaml.Node, at: tuple[str | int, ...] = ()) -> Iterator[Problem]:
    """Yield keys that stand twice in a mapping: of these YAML takes the last without a word."""
    if isinstance(node, yaml.MappingNode):
        seen = set[str]()
        for key, value in node.value:
            if key.value in seen:
                mark = key.start_mark
                yield Problem(mark.line + 1, mark.column + 1, f"{_dotted((*at, key.value))}: stands here twice")
            seen.add(key.value)
            yield from _twice(document, value, (*at, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _twice(document, item, (*at, number))


def _envelope(document: Document) -> Iterator[Problem]:
    body = document.body
    if body.get("apiVersion") != API_VERSION:
        yield document.problem(["apiVersion"], f"apiVersion: must be {API_VERSION}")
    metadata = body.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not name:
        yield document.problem(["metadata", "name"], "metadata.name: must be a name")
    if not isinstance(body.get("spec"), dict):
        yield document.problem(["spec"], "spec: must be there")
    for key in body.keys() - {"apiVersion", "kind", "metadata", "spec", "status"}:
        yield document.problem([key], f"{key}: no such field")


def _with_spec(document: Document) -> tuple[Document, list[Problem]]:
    try:
        spec = MigrationPolicySpec.model_validate(document.body["spec"], by_alias=True, by_name=False)
    except ValidationError as error:
        return document, [_problem(document, one) for one in error.errors(include_url=False)]
    return document._replace(spec=spec.model_dump(by_alias=True, exclude_none=True, mode="json")), []


def _problem(document: Document, error: ErrorDetails) -> Problem:
    path = ("spec", *error["loc"])
    shown = _dotted(_there(document.root, path))
    match error["type"]:
        case "extra_forbidden":
            message = "no such field"
        case "missing":
            message = f"{path[-1]} is missing"
        case _:
            message = error["msg"] + (f"; {QUOTES}" if isinstance(error["input"], bool) else "")
    return document.problem(path, f"{shown}: {message}")


def _dotted(path: Path) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def path_of(field: str) -> list[str | int]:
    """Return the path that an API server's error names, for example ``spec.rollout.guardrails[0].max``."""
    steps: list[str | int] = []
    for step in field.replace("[", ".[").split("."):
        number = step.strip("[]")
        steps.append(int(number) if step.startswith("[") and number.isdecimal() else number)
    return [step for step in steps if step != ""]


def _there(root: yaml.Node, path: Path) -> Path:
    """Return as much of a path as stands in the file: models name types in between, which do not."""
    return path[: sum(1 for _ in _walk(root, path))]


def _mark(root: yaml.Node, path: Path) -> yaml.Mark:
    mark = root.start_mark
    for mark in _walk(root, path):  # noqa: B007 - the last one is wanted
        pass
    return mark


def _walk(node: yaml.Node, path: Path) -> Iterator[yaml.Mark]:
    """Yield where each step of a path begins, as far as it stands there: a key, or an item of a list."""
    for step in path:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == str(step)), None)
            if found is None:
                return
            yield found[0].start_mark
            node = found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            yield node.start_mark
        else:
            return

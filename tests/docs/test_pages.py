# SPDX-License-Identifier: Apache-2.0
"""Every command that a page marks as runnable ends well and prints what the page shows; every object is taken.

That each block of a shell or of YAML is here, or says why not, checks ``scripts/document_names.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import yaml

from scripts.document_names import PAGES
from tests.docs.world import HELD, POLICY, World
from tests.testbed.api import Json, condition
from tests.testbed.commands import ROOT
from tests.testbed.pages import RUN, Step, blocks, steps

pytestmark = pytest.mark.uncounted

TYPED: Final[dict[str, list[Step]]] = {
    str(page.relative_to(ROOT)): found
    for page in PAGES
    if (found := [step for block in blocks(page) if block.kind == RUN for step in steps(block)])
}
ABOUT: Final[dict[str, tuple[Json, ...]]] = {
    "README.md": (POLICY,),
    "docs/quick-start.md": (),
    **{str(page.relative_to(ROOT)): () for page in (ROOT / "docs").glob("tutorial-*.md")},
}
"""What is there before somebody reads a page: else a policy and a held class."""


def objects() -> Iterator[tuple[str, Json]]:
    """Yield the examples, and the objects that pages show beside these, each with where it stands."""
    for path in sorted((ROOT / "examples").glob("*.yaml")):
        yield str(path.relative_to(ROOT)), yaml.safe_load(path.read_text())
    for page in PAGES:
        yield from _objects_of(page)


def _objects_of(page: Path) -> Iterator[tuple[str, Json]]:
    for block in blocks(page):
        if block.language == "yaml" and not block.mark:
            for number, document in enumerate(yaml.safe_load_all(block.text)):
                yield f"{page.relative_to(ROOT)}:{block.line}{f' ({number})' if number else ''}", document


OBJECTS: Final = dict(objects())


@pytest.mark.parametrize("page", TYPED)
def test_what_a_page_has_one_type_ends_well_and_prints_what_is_shown(world: World, page: str) -> None:
    world.begin(ABOUT.get(page, (POLICY, HELD)))

    wrong = ((step, said) for step in TYPED[page] if (said := world.type(step)))
    found = next((f"{page}:{step.line}: {said}" for step, said in wrong), "")
    assert not found, found


@pytest.mark.parametrize("place", OBJECTS)
def test_an_object_that_is_shown_is_taken_by_the_api_server_and_judged_by_the_operator(
    world: World, place: str
) -> None:
    world.begin(())

    path = world.apply(OBJECTS[place])

    found = world.api.watch_until(path, lambda one: one.get("status", {}).get("observedGeneration") == 1)
    assert condition(found, "Ready")

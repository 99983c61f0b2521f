# SPDX-License-Identifier: Apache-2.0
"""Records behave as the standard library's dataclasses do, where they are used."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from typing import Any

import pytest

from numamigration_api.machinery.records import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 2

    @property
    def sum(self) -> int:
        return self.x + self.y


@dataclass(frozen=True, slots=True)
class Other:
    x: int
    y: int = 2


@dataclass(slots=True)
class Bag:
    things: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    x: int


def test_fields_are_given_by_position_by_name_or_by_default() -> None:
    assert (Point(1), Point(1, 3).y, Point(y=3, x=1).x, Point(1).sum) == (Point(1, 2), 3, 1, 3)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda make: make(), id="a field is missing"),
        pytest.param(lambda make: make(1, 2, 3), id="one too many"),
        pytest.param(lambda make: make(1, x=1), id="one twice"),
        pytest.param(lambda make: make(1, z=1), id="one that does not exist"),
    ],
)
def test_other_arguments_are_errors(make: Any) -> None:
    with pytest.raises(TypeError, match="Point"):
        make(Point)


def test_a_field_of_a_keyword_only_class_has_no_position() -> None:
    make: Any = Named

    assert make(x=1).x == 1
    with pytest.raises(TypeError):
        make(1)


def test_equal_means_the_same_class_and_the_same_values() -> None:
    assert Point(1) == Point(1)
    assert Point(1) != Point(2)
    other: object = Other(1)
    assert Point(1) != other
    assert {Point(1), Point(1)} == {Point(1)}


def test_a_frozen_record_cannot_be_changed() -> None:
    point: Any = Point(1)

    with pytest.raises(AttributeError, match=r"Point\.x cannot be changed"):
        point.x = 2
    with pytest.raises(AttributeError, match="cannot be changed"):
        del point.x


def test_a_record_that_can_be_changed_cannot_be_hashed() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(Bag())


def test_a_record_has_no_other_attributes() -> None:
    bag: Any = Bag()

    with pytest.raises(AttributeError):
        bag.more = 1


def test_a_default_that_is_made_belongs_to_one_instance() -> None:
    Bag().things.append(1)

    assert Bag().things == []


def test_a_copy_has_other_values_in_some_fields() -> None:
    assert replace(Point(1, 3), x=2) == Point(2, 3)
    with pytest.raises(TypeError):
        replace(Point(1), z=1)


def test_a_deep_copy_is_equal_and_another_object() -> None:
    bag = Bag([1])
    other = copy.deepcopy(bag)
    other.things.append(2)

    assert bag == Bag([1])


def test_a_record_says_what_it_holds() -> None:
    assert repr(Point(1)) == "Point(x=1, y=2)"


def test_records_match_by_position() -> None:
    match Point(1):
        case Point(x, y):
            assert (x, y) == (1, 2)


COSTLY = frozenset(
    {
        "argparse",
        "dataclasses",
        "decimal",
        "difflib",
        "email",
        "gzip",
        "inspect",
        "ipaddress",
        "pathlib",
        "shutil",
        "subprocess",
        "tempfile",
        "urllib.parse",
    }
)


def test_the_agent_starts_without_modules_that_cost_memory_for_as_long_as_it_runs() -> None:
    program = "import sys, numamigration_agent.__main__; print(*sys.modules)"
    # Coverage would load some of them into every process.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, env=plain)
    loaded = run.stdout.split()

    assert "numamigration_agent.loop" in loaded
    assert not COSTLY.intersection(loaded)

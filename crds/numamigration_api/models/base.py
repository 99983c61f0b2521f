# SPDX-License-Identifier: Apache-2.0
"""What every model of the contract shares: strictness, names, bounds, and how Kubernetes extensions are said.

* Python says ``snake_case``, the API ``camelCase``; unknown fields are refused here as by the API server's strict mode.
* Absent is not null and not zero: an optional field is left out, never nullable.
* Every string, list and map is bounded, or the API server cannot bound the cost of a CEL rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from numamigration_api.machinery.quantities import (
    DECIMAL_LENGTH_MAX,
    DECIMAL_PATTERN,
    PERCENT_OR_ZERO_PATTERN,
    PERCENT_PATTERN,
    SIZE_LENGTH_MAX,
    SIZE_PATTERN,
)
from numamigration_api.vocabulary import EPOCH_MAX, FENCE_MESSAGE, LATE_MESSAGE, ConditionStatus, Reason

NAME_LENGTH_MAX: Final = 253  # RFC 1123 subdomain, the names of cluster-scoped objects
TEXT_LENGTH_MAX: Final = 1024
CONDITIONS_MAX: Final = 8


class Rule(NamedTuple):
    """A CEL rule and the sentence a person reads when it does not hold."""

    rule: str
    message: str


def some_of(*names: str, message: str, at: str = "self") -> Rule:
    """Return the rule that at least one of the fields `names` of the object `at` is given."""
    return Rule(" || ".join(f"has({at}.{name})" for name in names), message)


def never_falls(*path: str, message: str) -> Rule:
    """Return the rule that the integer at `path`, once there, neither shrinks nor goes."""
    places = [".".join(path[: depth + 1]) for depth in range(len(path))]
    gone = " || ".join(f"!has(oldSelf.{place})" for place in places)
    there = " && ".join(f"has(self.{place})" for place in places)
    return Rule(f"{gone} || ({there} && self.{places[-1]} >= oldSelf.{places[-1]})", message)


def leader_epoch_never_falls(*parents: str) -> Rule:
    """Return the fence: an object that a newer leader wrote takes nothing from an older one."""
    return never_falls(*parents, "leaderEpoch", message=FENCE_MESSAGE)


def write_sequence_never_falls() -> Rule:
    """Return the fence against a leader's own late writes: of one epoch, the API server keeps the order of decisions.

    A request that outlives its answer's time-out may arrive after the one that was sent in its place.
    """
    newer = "has(self.leaderEpoch) && has(oldSelf.leaderEpoch) && self.leaderEpoch > oldSelf.leaderEpoch"
    return Rule(f"({newer}) || {never_falls('writeSequence', message='').rule}", LATE_MESSAGE)


def extensions(
    *rules: Rule, list_type: str | None = None, map_keys: tuple[str, ...] = (), atomic: bool = False
) -> dict[str, Any]:
    """Return ``json_schema_extra`` for the Kubernetes extensions of a schema node."""
    extra: dict[str, Any] = {}
    if rules:
        extra["x-kubernetes-validations"] = [rule._asdict() for rule in rules]
    if list_type:
        extra["x-kubernetes-list-type"] = list_type
    if map_keys:
        extra["x-kubernetes-list-map-keys"] = list(map_keys)
    if atomic:
        extra["x-kubernetes-map-type"] = "atomic"
    return extra


class ApiModel(BaseModel):
    """Base of every model: camelCase, unknown fields refused, immutable."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, use_attribute_docstrings=True
    )


def nested(model: type[ApiModel]) -> Any:
    """Return a field that defaults to an empty object, whose own defaults the API server then fills in."""
    return Field(default_factory=model, json_schema_extra={"default": {}})


class Column(NamedTuple):
    """A printer column; `wide` ones show with ``-o wide`` only."""

    name: str
    json_path: str
    description: str
    type: str = "string"
    wide: bool = False

    def as_crd(self) -> Mapping[str, Any]:
        """Return the column as ``additionalPrinterColumns`` has it."""
        column: dict[str, Any] = {
            "name": self.name,
            "type": self.type,
            "jsonPath": self.json_path,
            "description": self.description,
        }
        return column | ({"priority": 1} if self.wide else {})


Name = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH_MAX)]
Uid = Annotated[str, Field(min_length=1, max_length=64)]
ShortText = Annotated[str, Field(max_length=128)]
Text = Annotated[str, Field(max_length=TEXT_LENGTH_MAX)]
Timestamp = Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"})]
Size = Annotated[str, Field(pattern=SIZE_PATTERN, max_length=SIZE_LENGTH_MAX)]
DecimalText = Annotated[str, Field(pattern=DECIMAL_PATTERN, max_length=DECIMAL_LENGTH_MAX)]
Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$", max_length=16)]
Count = Annotated[int, Field(ge=0)]
Epoch = Annotated[int, Field(ge=0, le=EPOCH_MAX)]

_INT_OR_PERCENT: Final[dict[str, Any]] = {"x-kubernetes-int-or-string": True, "maxLength": 4}
PositiveIntOrPercent = Annotated[
    Annotated[int, Field(ge=1, le=100_000)] | Annotated[str, Field(pattern=PERCENT_PATTERN)],
    Field(json_schema_extra=_INT_OR_PERCENT | {"minimum": 1, "maximum": 100_000, "pattern": PERCENT_PATTERN}),
]
IntOrPercent = Annotated[
    Annotated[int, Field(ge=0, le=100_000)] | Annotated[str, Field(pattern=PERCENT_OR_ZERO_PATTERN)],
    Field(json_schema_extra=_INT_OR_PERCENT | {"minimum": 0, "maximum": 100_000, "pattern": PERCENT_OR_ZERO_PATTERN}),
]


class ConditionModel(ApiModel):
    """``metav1.Condition``."""

    type: Annotated[str, Field(min_length=1, max_length=64)]
    status: ConditionStatus
    observed_generation: Count = 0
    last_transition_time: Timestamp
    reason: Reason
    message: Text = ""


Conditions = Annotated[
    list[ConditionModel],
    Field(max_length=CONDITIONS_MAX, json_schema_extra=extensions(list_type="map", map_keys=("type",))),
]

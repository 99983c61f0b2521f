# SPDX-License-Identifier: Apache-2.0
"""The page of ``kubectl numamigration report``: what is on it, and that it is nothing but itself."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import pytest

from numamigration_api.vocabulary import FleetSwitch
from numamigration_cli.commands.report import read
from numamigration_cli.exits import Exit, Failure
from numamigration_cli.objects import PolicyView
from numamigration_cli.views.report.facts import Objects, Place, place_of, report
from numamigration_cli.views.report.moments import MOMENTS_MAX, Mark, timeline
from numamigration_cli.views.report.page import page
from numamigration_cli.views.report.policies_part import along
from numamigration_cli.views.report.traffic import decimal, failed_share, histogram
from numamigration_cli.views.report.tuner_part import FLOOR_PIXELS, TOP_PIXELS, axis_end
from numamigration_operator.core.fleet_switch import Control
from tests.unit.cli_samples import (
    NOW,
    READY,
    UNKNOWN,
    condition,
    policy,
    profile,
    profile_document,
    results,
    state_document,
    wish,
)
from tests.unit.report_scene import as_reported, event, revision, scene

HOSTILE = "</script><script>alert(1)</script><img src=//evil.example/x onerror=alert(2)>\"'&\u202e\x1b[2J"
BYTES_MAX = 1_500_000
"""Of a page about 5,000 nodes."""


@dataclass
class Page(HTMLParser):
    """A page as a browser sees it: tags with their attributes, and the text in each."""

    text: str
    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    code: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in {"style", "script"} and data.strip():
            self.code.setdefault(self.tags[-1][0], data)
        else:
            self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def cells(self) -> list[str]:
        """Nodes of the map's cells."""
        return [cell["title"].partition(":")[0] for cell in self.all("i")]


def shown(objects: Objects) -> Page:
    return Page(page(report(objects)))


@pytest.fixture(scope="module")
def whole() -> Page:
    return shown(scene())


def one_node(**given: Any) -> Objects:
    return Objects(NOW, "https://here", nodes=[as_reported(state_document(**given))])


# Nothing but itself


def test_the_page_refers_to_nothing_outside_of_itself(whole: Page) -> None:
    for tag, attributes in whole.tags:
        assert not {"src", "srcset", "data", "action", "background", "xlink:href"} & set(attributes), tag
        assert attributes.get("href", "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
    assert not {"link", "iframe", "object", "embed", "base", "img"} & {tag for tag, _ in whole.tags}
    assert "url(" not in whole.code["style"]
    assert "@import" not in whole.code["style"]


def test_only_its_own_style_and_script_may_run(whole: Page) -> None:
    (policy_text,) = [meta["content"] for meta in whole.all("meta") if "http-equiv" in meta]

    rules = dict(rule.strip().split(" ", 1) for rule in policy_text.split(";"))

    assert rules["default-src"] == "'none'"
    for tag in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(whole.code[tag].encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"


def test_every_link_leads_to_a_place_of_the_page_and_no_place_is_there_twice(whole: Page) -> None:
    places = Counter(attributes["id"] for _, attributes in whole.tags if "id" in attributes)

    assert set(places.values()) == {1}
    assert {link["href"].removeprefix("#") for link in whole.all("a")} <= set(places)


def test_a_name_or_message_of_odd_characters_is_text_and_no_markup() -> None:
    hostile = state_document(
        HOSTILE,
        {},
        ready=condition("Ready", "False", "PermissionDenied", HOSTILE),
        hardwareClass=HOSTILE,
        offload=HOSTILE,
    )
    status = {"summary": HOSTILE, "conditions": [condition("Ready", "False", "RolledBack", HOSTILE)]}
    odd = policy(HOSTILE, uid="u", status=status)
    found = shown(
        Objects(
            NOW,
            HOSTILE,
            [odd],
            [as_reported(hostile)],
            events=[event(CHANGED, "RolledBack", HOSTILE, uid="u")],
            profiles=[profile(profile_document(HOSTILE, HOSTILE, message=HOSTILE))],
            missing=[HOSTILE],
        )
    )

    assert {tag: len(found.all(tag)) for tag in ("script", "img", "style")} == {"script": 1, "img": 0, "style": 1}
    assert "".join(found.texts).count("alert(1)</script>") >= 8
    assert "\u202e" not in found.text  # would turn the rest of its line around
    assert "\x1b" not in found.text


CHANGED = "2026-11-26T11:30:00Z"


# The fleet


def test_every_node_has_one_cell(whole: Page) -> None:
    wanted = [node.metadata.name for node in scene().nodes]

    assert len(wanted) == 240
    assert Counter(whole.cells) == Counter(wanted)


def test_the_legend_has_every_reason_with_its_count(whole: Page) -> None:
    bands = report(scene()).bands
    legend = [link for link in whole.all("a") if link["href"].startswith("#band-")]

    assert len(legend) == len(bands) == 7
    text = "".join(whole.texts)
    for band in bands:
        assert f"{band.reason} {band.place}, {len(band.nodes)} (" in text


def test_the_worst_stands_first() -> None:
    assert [band.place for band in report(scene()).bands] == list(Place)


def test_the_counts_of_each_kind_of_node_add_up_to_its_nodes(whole: Page) -> None:
    matrix = re.search(r'class="matrix">.*?</table>', whole.text, re.DOTALL)
    assert matrix is not None

    for row in re.findall(r'<tr><th scope="row">(?:\d).*?</tr>', matrix[0]):
        nodes, *counts = [int(cell) for cell in re.findall(r"<td[^>]*>(\d+)</td>", row)]
        assert sum(counts) == nodes


def test_a_table_says_the_same_in_words(whole: Page) -> None:
    text = "".join(whole.texts)

    for node in scene().nodes:
        assert node.metadata.name in text
    assert "Table of all 240 nodes" in text


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({}, Place.READY),
        ({"ready": condition("Ready", "True", "NoSettings")}, Place.UNTOUCHED),
        ({"reportedAt": "2026-11-26T11:39:59Z"}, Place.UNREACHABLE),
        ({"reportedAt": "2026-11-26T11:40:00Z"}, Place.READY),
        ({"reportedAt": "yesterday"}, Place.UNREACHABLE),
        ({"ready": condition("Ready", "False", "VersionSkew")}, Place.PENDING),
    ],
    ids=["ready", "no policy", "quiet for too long", "just in time", "no time", "no group says why"],
)
def test_where_a_node_stands_is_what_its_agent_said_and_when(given: dict[str, Any], place: Place) -> None:
    assert place_of(as_reported(state_document(**given)), NOW) is place


@pytest.mark.parametrize(
    ("states", "place"),
    [
        (["Ready", "Pending", "Refused", "Failed"], Place.FAILED),
        (["Unsupported", "Pending", "Refused"], Place.REFUSED),
        (["Unsupported", "Pending"], Place.PENDING),
        (["Unsupported"], Place.UNSUPPORTED),
        (["Perplexed"], Place.PENDING),
    ],
)
def test_of_a_node_that_is_not_ready_the_worst_group_speaks(states: list[str], place: Place) -> None:
    document = state_document(ready=condition("Ready", "False", "Applying"))
    document["status"]["groups"] = {f"g{number}": {"state": state} for number, state in enumerate(states)}

    assert place_of(as_reported(document), NOW) is place


def test_a_node_without_an_agent_is_unsupported_and_one_that_went_quiet_says_so() -> None:
    quiet = state_document("quiet", reportedAt="2026-11-26T09:00:00Z")

    found = report(Objects(NOW, "", nodes=[as_reported({"metadata": {"name": "new"}}), as_reported(quiet)]))

    assert [(band.place, band.reason) for band in found.bands] == [
        (Place.UNREACHABLE, "NodeUnreachable"),
        (Place.UNSUPPORTED, "NoAgent"),
    ]


def test_a_page_about_five_thousand_nodes_stays_small() -> None:
    found = shown(scene(5000))

    assert len(set(found.cells)) == 5000
    assert len(found.text.encode()) < BYTES_MAX


# Nothing there


def test_an_empty_cluster_has_a_page() -> None:
    text = "".join(shown(Objects(NOW, "https://here")).texts)

    assert "There is no node state." in text
    assert "There is no policy." in text
    assert "No node counts folios" in text
    assert "Fleet switch: unknown" in text


def test_what_could_not_be_read_is_on_the_page() -> None:
    assert "revisions: forbidden" in "".join(shown(Objects(NOW, "", missing=["revisions: forbidden"])).texts)


def test_a_policy_that_no_operator_has_seen_has_a_page() -> None:
    assert "no operator has seen it yet" in "".join(shown(Objects(NOW, "", [policy()])).texts)


def test_lines_of_a_terminal_stay_lines() -> None:
    control = Control(FleetSwitch.OFF, "", (("hold.0123456789abcdef", "{}"),))
    found = shown(Objects(NOW, "", [policy(status=READY)], control=control))

    text = "".join(found.texts)
    assert "Fleet switch: off\n  back to normal: kubectl numamigration stop run\nHeld class: " in text
    assert "3/3 ready\n  Ready True, AsExpected, for 30m, mode Apply\n" in text


# When what happened


def test_a_timeline_has_policy_revisions_verdicts_conditions_and_events_in_order() -> None:
    objects = scene()

    found = timeline(objects.policies[0], objects.revisions, objects.events)

    assert [(one.at[5:16], one.lane, one.mark) for one in found.moments] == [
        ("11-01T00:00", "policy", Mark.PLAIN),
        ("11-01T11:04", "revision 1", Mark.PLAIN),
        ("11-20T11:04", "revision 2", Mark.PLAIN),
        ("11-25T11:22", "revision 2", Mark.GOOD),
        ("11-25T11:28", "revision 2", Mark.GOOD),
        ("11-26T11:04", "revision 3", Mark.PLAIN),
        ("11-26T11:05", "policy", Mark.PLAIN),
        ("11-26T11:05", "events", Mark.PLAIN),
        ("11-26T11:23", "revision 3", Mark.GOOD),
        ("11-26T11:29", "revision 3", Mark.BAD),
        ("11-26T11:30", "Ready", Mark.PLAIN),
        ("11-26T11:30", "Stalled", Mark.BAD),
        ("11-26T11:30", "events", Mark.BAD),
    ]
    assert "settings.offload.channels: 2 -> 4" in found.moments[2].text


def test_revisions_and_events_of_another_policy_are_not_told() -> None:
    other = policy("other")

    found = timeline(other, [revision(1, {})], [event(CHANGED, "Applying", "")])

    assert [one.lane for one in found.moments] == ["policy"]


def test_of_too_many_events_the_latest_are_told_and_the_others_counted() -> None:
    events = [
        event(f"2026-11-26T{number // 60:02}:{number % 60:02}:00Z", "Applying", str(number)) for number in range(100)
    ]

    found = timeline(policy("database"), [], events)

    assert (len(found.moments), found.left_out) == (MOMENTS_MAX, 100 + 1 - MOMENTS_MAX)
    assert found.moments[-1].text == "Applying: 99"


def test_what_has_no_time_is_no_moment() -> None:
    nameless = policy(
        "database", status={"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "soon"}]}
    )
    undated = PolicyView(metadata=nameless.metadata, status=nameless.status)

    assert [one.text for one in timeline(undated, [], [event("", "Applying", "")]).moments] == ["created"]


def test_what_is_recent_has_more_room() -> None:
    day = 86400.0

    assert along(0, day) == pytest.approx(0.99)
    assert along(day, day) == pytest.approx(0.01)
    assert along(3600, day) < 0.5


# What was counted


def test_numbers_are_by_kind_and_before_and_after_a_change() -> None:
    (found, *_) = [one for one in report(scene()).traffic if one.compared]

    assert (found.before, found.measured) == (70.0, 79)
    assert found.after is not None
    assert found.after > 70
    assert sum(found.bins) == 79


def test_what_no_kernel_counts_is_no_number() -> None:
    (found,) = report(one_node(statistics={})).traffic

    assert (found.rate, found.folios_migrated, found.failed_share, found.bins, found.compared) == (
        None,
        None,
        None,
        (),
        0,
    )


@pytest.mark.parametrize(
    ("counts", "share"), [((99, 1), 0.01), ((0, 0), None), ((None, 1), None), ((1, None), None), ((5, 0), 0.0)]
)
def test_a_share_needs_both_counts_and_something_counted(
    counts: tuple[int | None, int | None], share: float | None
) -> None:
    assert failed_share(*counts) == share


@pytest.mark.parametrize(("folios", "told"), [(511, False), (512, True)])
def test_nodes_that_fail_most_are_told_once_they_have_copied_enough(folios: int, told: bool) -> None:
    found = shown(one_node(statistics={"foliosMigrated": folios - 9, "foliosFailed": 9}))

    assert ("Most failed folios" in "".join(found.texts)) is told


@pytest.mark.parametrize("text", ["", "many", "nan", "-1", "1e999", None])
def test_what_is_no_number_is_none(text: str | None) -> None:
    assert decimal(text) is None


def test_every_value_is_in_one_bar() -> None:
    bars = histogram([0.0, 0.5, 1.0, 1.0])

    assert (sum(bars), bars[0], bars[-1], bars[len(bars) // 2]) == (4, 1, 2, 1)
    assert sum(histogram([0.0, 0.0])) == 2
    assert histogram([]) == ()


# What was tuned


def tuned(**status: Any) -> Page:
    return shown(Objects(NOW, "", profiles=[profile(profile_document(**status))]))


def marks(page: Page, tag: str, name: str) -> list[list[str]]:
    return [words for one in page.all(tag) if name in (words := one.get("class", "").split())]


def test_without_profiles_there_is_no_word_of_the_tuner(whole: Page) -> None:
    links = [[link["href"] for link in page.all("a")] for page in (whole, shown(Objects(NOW, "")))]

    assert ["#tuner" in found for found in links] == [True, False]
    assert "Tuner" not in "".join(shown(Objects(NOW, "")).texts)


def test_each_kind_of_call_has_a_drawing_with_every_setting_beside_the_plain_copy() -> None:
    page = tuned()

    assert "".join(page.texts).count("512 × 4Ki: GB/s by DMA channels") == 1
    assert [len(page.all(tag)) for tag in ("figure", "circle")] == [3, 9]
    assert marks(page, "line", "copy") == [["copy"]] * 3
    assert marks(page, "circle", "chosen") == [["engine", "chosen"]] * 3
    assert "DMA, 4 channels: 2.61 GB/s ± 0.05, +22 %, 10 samples, chosen" in page.texts


def test_where_offload_stays_off_the_plain_copy_is_the_choice() -> None:
    page = tuned(recommendation={"engine": "Off"}, gain=None)

    assert marks(page, "line", "chosen") == [["copy", "chosen"]] * 3
    assert marks(page, "circle", "chosen") == []


def test_a_table_has_the_measurements_in_words() -> None:
    assert "12 measurements in words" in tuned().texts
    assert {"DMA, 2 channels", "1.71", "-20 %"} <= set(tuned().texts)


def test_a_class_says_what_was_made_of_its_measurements(whole: Page) -> None:
    text = "".join(whole.texts)

    assert "Measured 3d ago on 2 nodes; measured anew: in 27d" in text
    assert "Disputed 3d ago on 1 node; measured anew: in 23h" in text
    assert "Under tuning.mode Auto nodes of this class have: DMA, 4 channels." in text


def test_a_class_without_measurements_has_words_and_no_drawing() -> None:
    page = shown(Objects(NOW, "", profiles=[profile(UNKNOWN)]))

    assert "There are no measurements in it." in page.texts
    assert page.all("figure") == []


def test_a_point_stands_the_higher_the_faster_it_was() -> None:
    slow, middle, fast = (float(circle["cy"]) for circle in tuned().all("circle")[:3])

    assert slow > middle > fast >= TOP_PIXELS


@pytest.mark.parametrize(("most", "end"), [(2.14e9, 3e9), (3e9, 3e9), (9.9e9, 1e10), (1.0, 1.0), (0.0, 1.0)], ids=str)
def test_an_axis_ends_at_a_round_number_with_room_for_all(most: float, end: float) -> None:
    assert axis_end(most) == pytest.approx(end)


def test_speeds_of_zero_are_drawn_at_the_floor() -> None:
    page = tuned(results=results(({("CPU", 0): 0.0, ("DMA", 1): 0.0},) * 3))

    assert {float(circle["cy"]) for circle in page.all("circle")} == {FLOOR_PIXELS}


# For every eye


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colors (WCAG 2.2, relative luminance)."""

    def luminance(color: str) -> float:
        parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_and_cells_stand_out_from_the_paper(whole: Page, theme: int) -> None:
    pairs = re.findall(r"--([a-z]+): light-dark\((#\w{6}), (#\w{6})\)", whole.code["style"])
    colors = {name: shades[theme] for name, *shades in pairs}

    for name in ("ink", "quiet", "link"):
        for ground in ("paper", "raised"):
            assert contrast(colors[name], colors[ground]) >= 4.5, (name, ground)
    for place in Place:
        assert contrast(colors[place], colors["paper"]) >= 3, place


def test_every_drawing_has_a_title_and_every_table_a_caption_and_heads(whole: Page) -> None:
    for tag, attributes in whole.tags:
        if tag == "svg" and attributes.get("role") != "img":
            assert attributes.get("aria-hidden") == "true" or attributes["class"].startswith("mark")
    drawings = sum(svg.get("role") == "img" for svg in whole.all("svg"))
    assert len(whole.all("title")) > drawings
    assert len(whole.all("caption")) == len(whole.all("table"))
    assert {head["scope"] for head in whole.all("th")} == {"row", "col"}


def test_a_map_says_to_those_who_cannot_see_it_what_it_shows(whole: Page) -> None:
    maps = [div for div in whole.all("div") if div.get("class", "").startswith("cells")]

    assert [one["role"] for one in maps] == ["img"] * 7
    assert maps[0]["aria-label"] == "8 nodes: failed, GuardrailTripped; the table of all nodes names them"


def test_a_group_that_a_policy_sets_names_the_policy() -> None:
    assert report(one_node(groups={"offload": wish("mine")})).nodes[0].row.policies == ("mine",)


# What may not be read, or is not there


class Half:
    """A cluster that has some collections, and refuses the others."""

    server = "https://here"
    namespace = "n"

    def __init__(self, refused: Exit, *collections: str) -> None:
        self._refused, self._collections = refused, collections

    def in_namespace(self, resource: str, name: str = "", api: str = "") -> str:
        return f"{api}/{resource}/{name}"

    async def list_all(self, path: str, *_kinds: Any, **_options: Any) -> list[Any]:
        if any(word in path for word in self._collections):
            return []
        raise Failure(self._refused, f"no {path}")

    async def get(self, *_path: Any) -> None:
        return None


@pytest.mark.parametrize("there", ["migrationpolicies", "nodemigrationstates"])
def test_a_half_installed_cluster_has_a_page_that_says_what_is_not_there(there: str) -> None:
    found = asyncio.run(read(Half(Exit.NOT_INSTALLED, there), NOW))  # type: ignore[arg-type]

    assert [line.partition(":")[0] for line in found.missing] == [
        "node states" if there == "migrationpolicies" else "policies",
        "revisions",
        "events",
    ]
    assert found.profiles == ()


def test_a_cluster_with_none_of_it_has_no_page() -> None:
    with pytest.raises(Failure) as caught:
        asyncio.run(read(Half(Exit.NOT_INSTALLED), NOW))  # type: ignore[arg-type]

    assert caught.value.code is Exit.NOT_INSTALLED


def test_what_else_goes_wrong_is_no_missing_part_but_an_error() -> None:
    with pytest.raises(Failure, match="no "):
        asyncio.run(read(Half(Exit.FAILED, "migrationpolicies"), NOW))  # type: ignore[arg-type]

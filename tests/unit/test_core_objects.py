# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import sys
from typing import Any

import msgspec

from numamigration_operator.core.node_facts import report_of
from numamigration_operator.core.objects import NodeObject, RevisionObject, StateObject

METADATA: dict[str, Any] = {
    "name": "web-0123456789",
    "uid": "revision-uid",
    "labels": {"numamigration.dev/policy-uid": "policy-uid"},
    "annotations": {"cell.numamigration.dev/0123456789abcdef": '{"verdict":"Proven"}'},
    "ownerReferences": [{"apiVersion": "numamigration.dev/v1alpha1", "kind": "MigrationPolicy", "uid": "policy-uid"}],
}


def test_a_controller_revision_is_read_with_its_verdicts_and_its_content() -> None:
    document = {"metadata": METADATA, "data": {"settings": {"demotion": {"enabled": True}}}, "revision": 3}

    revision = msgspec.json.decode(json.dumps(document).encode(), type=RevisionObject)

    assert revision.metadata.annotations == METADATA["annotations"]
    assert [owner.uid for owner in revision.metadata.owner_references] == ["policy-uid"]
    assert revision.data == {"settings": {"demotion": {"enabled": True}}}
    assert revision.revision == 3


def test_annotations_of_a_node_never_become_python() -> None:
    """15,000 Nodes with kilobytes of annotations each are not in the operator's memory."""
    node = msgspec.json.decode(json.dumps({"metadata": METADATA}).encode(), type=NodeObject)

    assert not hasattr(node.metadata, "annotations")


def test_a_report_keeps_nothing_of_the_text_that_brought_it() -> None:
    """A list page has 500 node states: each of them would keep all of it in memory."""
    window = {"revision": "r", "before": {"seconds": "60"}, "after": {"seconds": "60"}}
    status = {"observedRevision": "r", "window": window}
    text = json.dumps({"metadata": {"name": "n"}, "status": status}).encode()
    references = sys.getrefcount(text)

    report = report_of(msgspec.json.decode(text, type=StateObject).status)

    assert report is not None
    assert msgspec.json.decode(report.window.after) == {"seconds": "60"}
    assert sys.getrefcount(text) == references

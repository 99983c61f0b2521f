# SPDX-License-Identifier: Apache-2.0
"""What seccomp lets an agent do that has no capability, on a real kubelet and containerd, with the agent's own code.

The profile RuntimeDefault of containerd 2.4 lets mbind and move_pages pass with CAP_SYS_NICE only; both answer EPERM
(contrib/seccomp/seccomp_default.go). One NUMA node is enough to see it: a page that is there already is moved to where
it is.
"""

from __future__ import annotations

import json
from errno import EPERM
from typing import Final

import pytest

from numamigration_agent.kernel.pages import MEMPOLICY_MBIND, SYSCALL_OR_CPUSET
from tests.cluster.bed import Cluster
from tests.cluster.images import AGENT_IMAGE
from tests.testbed.api import Json

pytestmark = pytest.mark.uncounted

ASK_ALONE: Final = """
import json, os
from numamigration_agent.kernel.mover import Libc, Region
from numamigration_agent.kernel.pages import Batch
libc = Libc(os.uname().machine)
region = Region(libc, Batch(0, 0, small=4, huge=0), 0)
answers = {}
for name, call in (
    ("mbind", lambda: libc.prefer(region.start, region.length, 0)),
    ("move_pages", lambda: libc.move([region.start], 0)),
):
    try:
        call()
        answers[name] = 0
    except OSError as error:
        answers[name] = error.errno
print(json.dumps(answers))
"""

MOVE: Final = """
import json
from numamigration_agent.kernel.mover import move
from numamigration_agent.kernel.pages import Batch, MoveRequest
answer = move(MoveRequest("{reason}", (Batch(0, 0, small=16, huge=0),), salt=1, seconds_max=10))
passages = [[passage.folios, passage.left, passage.wrong, passage.errno] for passage in answer.passages]
print(json.dumps([answer.errno, answer.cause, passages]))
"""


def agent_pod(code: str, profile: str) -> Json:
    """Return a Pod with the agent's image, user and rights, that runs `code`."""
    security = {
        "runAsUser": 0,
        "capabilities": {"drop": ["ALL"]},
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "seccompProfile": {"type": profile},
    }
    container = {
        "name": "agent",
        "image": AGENT_IMAGE,
        "imagePullPolicy": "Never",
        "securityContext": security,
        "command": ["python3", "-c", code],
    }
    return {"containers": [container]}


@pytest.mark.parametrize(
    ("profile", "errno"),
    [pytest.param("Unconfined", 0, id="Unconfined"), pytest.param("RuntimeDefault", EPERM, id="RuntimeDefault")],
)
def test_without_capabilities_the_profile_alone_decides_whether_pages_can_be_moved(
    cluster: Cluster, namespace: str, profile: str, errno: int
) -> None:
    answers = json.loads(cluster.run_pod(namespace, agent_pod(ASK_ALONE, profile)))

    assert answers == {"mbind": errno, "move_pages": errno}


@pytest.mark.parametrize("reason", [SYSCALL_OR_CPUSET, MEMPOLICY_MBIND])
def test_an_unconfined_agent_moves_its_pages_and_finds_every_byte(
    cluster: Cluster, namespace: str, reason: str
) -> None:
    said = cluster.run_pod(namespace, agent_pod(MOVE.format(reason=reason), "Unconfined"))

    assert json.loads(said) == [0, "", [[16, 0, 0, 0], [16, 0, 0, 0]]]


def test_a_refused_agent_says_what_lets_it_pass(cluster: Cluster, namespace: str) -> None:
    said = cluster.run_pod(namespace, agent_pod(MOVE.format(reason=SYSCALL_OR_CPUSET), "RuntimeDefault"))

    assert json.loads(said) == [
        EPERM,
        "mbind: refused by the seccomp profile; set the chart's agent.seccompProfile to Unconfined or Localhost",
        [],
    ]

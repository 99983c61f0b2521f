# SPDX-License-Identifier: Apache-2.0
"""``numamigration-operator uninstall``: the values of before back on every node, and nothing of ours in the way.

1. The fleet switch goes to restore. The operator that leads asks every node, and the agents answer.
2. Until each node state says so, or the time is over, we wait. Nobody has to be alive for this to end (promise 13):
   what did not answer is named, with the values that are left there.
3. Our finalizer goes out of every policy. An operator that still runs does not put it back under this switch.
4. With ``--delete-crds`` the CRDs go too.

The switch stays where it is: an operator that still runs would push everything anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final, NamedTuple

import msgspec
import yaml

from numamigration_api.definitions import definitions
from numamigration_api.machinery.canonical import canonical_json
from numamigration_api.vocabulary import (
    CONTROL_CONFIG_MAP,
    FINALIZER_MANAGER,
    FLEET_KEY,
    POLICY_PLURAL,
    RESTORE_FINALIZER,
    STATE_PLURAL,
    FleetSwitch,
)
from numamigration_operator.cluster.client import Client, NoAnswerError
from numamigration_operator.cluster.informer import POLICIES, STATES, AnyObject, Informer, Resource
from numamigration_operator.cluster.lists import whole_list
from numamigration_operator.commands import Say
from numamigration_operator.commands.asking import ask
from numamigration_operator.commands.crds import CRDS, LOOK_AGAIN_SECONDS, read_crd
from numamigration_operator.core.crd_order import Standing, compare
from numamigration_operator.core.decisions import Patch
from numamigration_operator.core.fleet_switch import read_control
from numamigration_operator.core.leftovers import KnobState, Leftover, leftover
from numamigration_operator.core.objects import ConfigMapObject, Meta
from numamigration_operator.core.policy_record import finalizer_removal

MANAGER: Final = "numamigration-uninstall"
REQUEST_SECONDS: Final = 60.0
"""For each step that asks nobody but the API server, over and above the wait for the nodes."""
SETTLE_SECONDS: Final = 3.0
"""No node may have anything for so long: an operator hears of the switch within milliseconds, and what it has sent
before that has arrived by then."""
PROGRESS_SECONDS: Final = 10.0
NAMED_MAX: Final = 3
"""Nodes in a line of progress."""
SHOWN_MAX: Final = 20
"""Nodes that are named in the end, with what is left there."""
AGAIN: Final = frozenset({404, 409, 422})
"""Answers to a patch of a policy that has changed, or is gone; 422 is also a `test` step that failed."""

_any: Final = msgspec.json.Decoder(AnyObject)
_control: Final = msgspec.json.Decoder(ConfigMapObject)


async def uninstall(client: Client, namespace: str, wait_seconds: float, delete_crds: bool, say: Say) -> bool:
    """Do all of it; return whether our own part is done, whatever the nodes did.

    Raises:
        ClusterError: the API server refuses, or did not answer in time.
    """
    if not await _is_served(client):
        say("no CRD of ours is installed: there is nothing to restore")
        return True
    if not await _turn(client, namespace, say):
        return False
    nodes = await _wait(client, wait_seconds, say)
    done, policies = await _release(client, say)
    if delete_crds:
        deleted = await _delete_crds(client, say)
        done, policies = done and deleted, 0
    _tell(nodes, policies, namespace, say)
    return done


async def _is_served(client: Client) -> bool:
    answer = await ask(client, "GET", STATES.path, until=_soon(), query={"limit": "1"})
    if answer.status == 404:
        return False
    answer.check()
    return True


def _soon() -> float:
    return time.monotonic() + REQUEST_SECONDS


# The switch


async def _turn(client: Client, namespace: str, say: Say) -> bool:
    """Turn the fleet switch, and look whether an operator can read it."""
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CONTROL_CONFIG_MAP},
        "data": {FLEET_KEY: FleetSwitch.RESTORE},
    }
    answer = await ask(
        client,
        "PATCH",
        f"/api/v1/namespaces/{namespace}/configmaps/{CONTROL_CONFIG_MAP}",
        until=_soon(),
        query={"fieldManager": MANAGER, "force": "true"},
        body=canonical_json(body),
        content_type=Patch.APPLY,
    )
    control = read_control(_control.decode(answer.check()))
    if control.switch is not FleetSwitch.RESTORE:
        say(f"stopped: {control.problem}. Mend it, then run this again: no operator restores before that")
        return False
    say(f"fleet switch: {FleetSwitch.RESTORE} (ConfigMap {CONTROL_CONFIG_MAP} in {namespace})")
    return True


# The nodes


class Nodes:
    """What node states say, kept small: of the nodes that are done only the name.

    Attributes:
        names: of all node states.
        left: those that have not confirmed, by name.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.left: dict[str, Leftover] = {}
        self.are_listed = asyncio.Event()
        self._free, self._taken = asyncio.Event(), asyncio.Event()

    def upsert(self, item: KnobState) -> None:
        """A node state is as given."""
        name, left = item.metadata.name, leftover(item)
        self.names.add(name)
        if left is None:
            self.left.pop(name, None)
        else:
            self.left[name] = left
        self._note()

    def gone(self, item: AnyObject) -> None:
        """A node state was deleted."""
        self._forget({item.metadata.name})

    def list_begun(self) -> None:
        """What is there is kept until the list is complete."""

    def listed(self, names: frozenset[str]) -> None:
        """These node states exist, and no others."""
        self.are_listed.set()
        self._forget(self.names - names)

    def _forget(self, names: set[str]) -> None:
        self.names -= names
        for name in names:
            self.left.pop(name, None)
        self._note()

    def _note(self) -> None:
        now, before = (
            (self._free, self._taken) if self.are_listed.is_set() and not self.left else (self._taken, self._free)
        )
        now.set()
        before.clear()

    async def done(self) -> None:
        """Return once no node has had anything for SETTLE_SECONDS."""
        while True:
            await self._free.wait()
            try:
                async with asyncio.timeout(SETTLE_SECONDS):
                    await self._taken.wait()
            except TimeoutError:
                return

    def __str__(self) -> str:
        named = ", ".join(sorted(self.left)[:NAMED_MAX])
        more = f" and {len(self.left) - NAMED_MAX} more" if len(self.left) > NAMED_MAX else ""
        return f"{len(self.left)} of {len(self.names)} nodes: {named}{more}"


async def _wait(client: Client, wait_seconds: float, say: Say) -> Nodes:
    """Wait until every node has confirmed, at most so long; say now and then how far it is.

    Raises:
        NoAnswerError: node states could not be listed.
    """
    nodes = Nodes()
    resource = Resource(name=STATES.name, path=STATES.path, decoder=msgspec.json.Decoder(KnobState))
    async with _running(Informer(client, resource, nodes).run()), _running(nodes.done()) as done:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                await nodes.are_listed.wait()
        except TimeoutError as error:
            raise NoAnswerError("node states cannot be listed") from error
        until = time.monotonic() + wait_seconds
        while not done.done() and (rest := until - time.monotonic()) > 0:
            if nodes.left:
                say(f"waiting {rest:.0f} s more for {nodes}")
            await asyncio.wait([done], timeout=min(rest, PROGRESS_SECONDS))
    return nodes


@contextlib.asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()


# The policies


class Released(NamedTuple):
    """What became of the policies.

    Attributes:
        done: none has our finalizer any more.
        policies: how many there are.
    """

    done: bool
    policies: int


async def _release(client: Client, say: Say) -> Released:
    """Take our finalizer out of every policy, and look again until none has it."""
    until, taken, refusal = _soon(), set[str](), ""
    while True:
        policies = await _list_policies(client, until)
        held = [policy for policy in policies if RESTORE_FINALIZER in policy.finalizers]
        if not held or time.monotonic() >= until:
            break
        for policy in held:
            refusal = await _release_one(client, policy, until) or refusal
            taken.add(policy.uid)
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
    if held:
        say(f"{len(held)} policies still have our finalizer, for example {held[0].name}: {refusal or 'put back'}")
    taken -= {policy.uid for policy in held}
    say(f"finalizer taken out of {len(taken)} policies")
    return Released(not held, len(policies))


async def _release_one(client: Client, policy: Meta, until: float) -> str:
    """Take our finalizer out of one policy; return why the API server refused it: most often somebody else wrote."""
    answer = await ask(
        client,
        "PATCH",
        f"{POLICIES.path}/{policy.name}",
        until=until,
        query={"fieldManager": FINALIZER_MANAGER},
        body=finalizer_removal(policy),
        content_type=Patch.JSON,
    )
    if answer.status in AGAIN:
        return answer.message
    answer.check()
    return ""


async def _list_policies(client: Client, until: float) -> list[Meta]:
    return await whole_list(
        lambda query: ask(client, "GET", POLICIES.path, until=until, query=query),
        lambda item: _any.decode(item).metadata,
    )


# The CRDs


async def _delete_crds(client: Client, say: Say) -> bool:
    until = _soon()
    return all([await _delete_crd(client, yaml.safe_load(text), until, say) for text in definitions().values()])


async def _delete_crd(client: Client, ours: Any, until: float, say: Say) -> bool:
    name = ours["metadata"]["name"]
    stored = await read_crd(client, name, until)
    found = compare(stored, ours)
    if stored is None or found.standing is Standing.FOREIGN:
        say(f"{name}: {f'left alone: {found.why}' if found.why else 'is not there'}")
        return True
    body = canonical_json({"preconditions": {"uid": stored["metadata"]["uid"]}})
    answer = await ask(client, "DELETE", f"{CRDS}/{name}", until=until, body=body)
    if answer.status not in {404, 409}:  # 409: another one of this name stands there by now
        answer.check()
    while await read_crd(client, name, until) is not None:
        if time.monotonic() >= until:
            say(f"{name}: is being deleted, and not gone yet: look for finalizers of others on its objects")
            return False
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
    say(f"{name}: deleted")
    return True


# What is left


def _tell(nodes: Nodes, policies: int, namespace: str, say: Say) -> None:
    """Say what is left, where, and what to do about it."""
    if not nodes.left:
        say(f"nothing of ours is in force on any of {len(nodes.names)} nodes")
    else:
        say(f"left on {len(nodes.left)} of {len(nodes.names)} nodes:")
    for name, left in heapq.nsmallest(SHOWN_MAX, nodes.left.items()):
        say(f"  {name}: {', '.join(left.groups)}: {left.why}")
        for value in left.values:
            say(f"    {value}")
    if len(nodes.left) > SHOWN_MAX:
        say(f"  and {len(nodes.left) - SHOWN_MAX} more; kubectl get {STATE_PLURAL} shows all")
    if nodes.left:
        say("A node that boots has its kernel's own values; an agent that comes back restores what it was asked to.")
    if policies:
        say(f"{policies} policies are still there: kubectl delete {POLICY_PLURAL} --all")
    say(f"to install anew, first: kubectl -n {namespace} delete configmap {CONTROL_CONFIG_MAP}")

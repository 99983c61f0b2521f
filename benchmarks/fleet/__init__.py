# SPDX-License-Identifier: Apache-2.0
"""What thousands of nodes cost, scenario by scenario: ``make bench-fleet NODES=5000 SCENARIOS=install,edit``.

* Real etcd and kube-apiserver; the operator is a process of its own with its own account's rights; every node has an
  agent of ``tests.fleet``: the agent's own engine on a fake kernel, with a watch connection of its own. But for one,
  whose agent is a process as on a node, so that what it takes can be told.
* Bare loops run in the same run with the same agents answering, in turn with the product, for they are what the machine
  allows: ratios hold on a busy machine, seconds do not.
* Moments are those at which a watch of this process tells; nothing is polled that an event tells.

``scenarios`` is the table of what is done and ``bed`` what it is done to, with ``agents`` and ``operators``; ``extent``
says how large; ``states`` tells when a node was written, ``meters`` and ``wire`` what was counted; ``bare`` are
the bare loops, and ``report`` makes numbers of it all.
"""

# SPDX-License-Identifier: Apache-2.0
"""A whole cluster with one node on this machine, for what only a real kubelet shows; it leaves nothing behind.

Map:

* ``bed``: the cluster; ``node``: its node, in namespaces of its own, where a fake kernel stands in for the machine's.
* ``keeper``, ``tunnel``: two small programs, one that puts everything back and one that joins two networks.
* ``images``: container images, made once; ``prepare``: all that is made once.
* ``needs``: what the machine must have; ``traces``: what must be as it was before.
* ``conftest``: the same for pytest; ask for ``cluster``.

``python -m tests.cluster --help`` starts it by hand.
"""

# SPDX-License-Identifier: Apache-2.0
"""Many node agents in one process against a real API server: the agent's own engine, each on a fake kernel of its own.

    python -m tests.fleet --kubeconfig FILE --nodes 200 --control SOCKET

What runs is what a node runs (``numamigration_agent.loop``, list and watch, jobs); what is not there is FUSE, a thread
for each lane, and a process for each node. One watch connection an agent, as in a cluster; statuses go through a few
shared connections, and lists too. Time is real.
"""

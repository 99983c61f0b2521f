#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What /guest-init of the root disk goes on with: shares, network, then the runner. Process 1 of the guest.
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmp /tmp
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=none exchange /mnt/exchange
ip link set lo up
for card in /sys/class/net/e*; do
    ip link set "${card##*/}" up
    ip addr add 10.0.2.15/24 dev "${card##*/}"
    ip route add default via 10.0.2.2
done
export HOME=/root PYTHONPATH=/mnt/code:/mnt/code/crds:/mnt/code/node-agent:/mnt/exchange/python
# The code is shared read-only: what Python compiles goes into memory.
export PYTHONPYCACHEPREFIX=/tmp/pycache
cd /tmp
python3 -m tests.kernel.suite.runner
echo "guest: the runner ended with $?"
echo o >/proc/sysrq-trigger
while :; do sleep 60; done

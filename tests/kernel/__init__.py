# SPDX-License-Identifier: Apache-2.0
"""A real kernel in the loop: a QEMU guest with NUMA nodes and a lower memory tier, and what runs in it.

Map:

* ``choice``: which kernel: Debian's, or one that the person at the keyboard names.
* ``needs``: what the machine must have, told in one line each.
* ``store``: the cache folder; things in it are whole or absent.
* ``packages``: Debian's kernel, and the headers of the very same version.
* ``image``: initramfs and root disk.
* ``drivers``: kernel modules of ours, built for that kernel.
* ``machine``: the guest's hardware, as a QEMU command line.
* ``boot``: one boot: QEMU, the console, the line to the runner.
* ``guest``: a guest for tests: questions, programs, files, reboot.
* ``prepare``: all of these together.
* ``suite/``: what runs inside: the runner, and the guest's tests. Standard library only, for the guest has no more.
* ``workload``: a real program in the guest, whose pages migrate.
* ``session``: the one guest of a pytest run.
* ``collection``: makes each of the guest's tests one of pytest's.

QEMU emulates the processors (TCG): no hardware virtualization is asked for, so it runs anywhere, and no time that is
measured in it says anything about a real machine.

``python -m tests.kernel --help`` starts it by hand.
"""

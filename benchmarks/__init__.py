# SPDX-License-Identifier: Apache-2.0
"""What the product costs, measured on real processes; never asserted by a timed test.

* ``footprint``: memory, time to the first status, idle CPU. ``latency``: policy edit to kernel file, hop by hop.
  ``plugin``: tables of the kubectl plugin beside kubectl's own.
* ``schema`` is the one form of every result, ``table`` puts results into README.md.
* Every comparison runs beside its baseline, interleaved, in one run; a number without its machine is worth nothing.
"""

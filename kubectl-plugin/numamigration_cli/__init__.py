# SPDX-License-Identifier: Apache-2.0
"""``kubectl numamigration``: what is on, where it does not work, why, since when, and how to undo it.

* ``commands`` read, call a view, and print; nothing is decided there.
* ``views`` are pure: decoded objects and the time go in, rows and words come out.
* ``cluster`` is the only door to the API server; its client is the operator's.
"""

# SPDX-License-Identifier: Apache-2.0
"""Random histories of one agent on one fake kernel, and a check of the promises after every step.

* ``moves``: what may happen, as plain data made from a seed; a history is a host and a list of moves.
* ``world``: the agent, its kernel, its state folder and its node state, one unit of work at a time.
* ``oracle``: what is promised, said anew: it knows files, values and objects, and nothing of the agent's own planning.
* ``histories``: run one, and make one that fails as short as can be.
"""

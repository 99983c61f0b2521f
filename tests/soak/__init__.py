# SPDX-License-Identifier: Apache-2.0
"""The long forms of the fault tests, for hours without a person: ``make soak``.

* ``model``: what people asked for and what each kernel shall hold then; pure.
* ``stage``: the processes: API server, operator, one agent and one fake kernel for each node.
* ``__main__``: edits and kills at random from a seed, a check after each calm, and the log.
* ``rollouts``: kills in rollouts over a simulated fleet, and the budget at every version that was stored.
"""

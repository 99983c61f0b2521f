# SPDX-License-Identifier: Apache-2.0
"""What pages tell people to type and to apply, tried as it stands there.

One API server for all of it, with the operator as a process of its own and simulated nodes (``tests.fleet``). No Pod
runs there: what needs one is marked so, and run by tests/cluster or by nobody.
"""

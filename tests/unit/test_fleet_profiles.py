# SPDX-License-Identifier: Apache-2.0
"""Shares of a CPU profile, as ``go tool pprof`` prints it."""

from __future__ import annotations

from benchmarks.fleet.profiles import PARTS, shares

TOP = """File: kube-apiserver
Type: cpu
Duration: 15s, Total samples = 6.32s (42.13%)
Showing nodes accounting for 6.32s, 100% of 6.32s total
 flat flat% sum% cum cum%
         0     0%  1.27%      1.64s 25.95%  k8s.io/apiserver/pkg/registry/rest.ValidateUpdate
     0.03s 0.47% 6.01%   0.84s 13.29% k8s.io/apiserver/pkg/endpoints/handlers.(*applyPatcher).applyPatchToCurrentObject
         0     0% 10.13%      0.49s  7.75%  k8s.io/apiserver/pkg/storage/etcd3.decodeObj (inline)
"""


def test_a_part_of_a_profile_is_its_function_with_all_that_it_calls() -> None:
    found = shares(TOP)

    assert found["validation"] == 25.95
    assert found["applying"] == 13.29


def test_a_function_that_was_inlined_counts_too() -> None:
    assert shares(TOP)["decoding what was stored"] == 7.75


def test_a_function_that_took_no_sample_has_no_share() -> None:
    assert shares(TOP)["watches"] == 0
    assert shares(TOP).keys() == PARTS.keys()

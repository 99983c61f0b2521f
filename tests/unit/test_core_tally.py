# SPDX-License-Identifier: Apache-2.0
from collections import Counter
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from numamigration_api.vocabulary import NodeBucket, Reason, SettingsGroup
from numamigration_operator.core.classify import READY, Verdict
from numamigration_operator.core.objects import PolicyStatistics, Statistics
from numamigration_operator.core.resolve import Loss
from numamigration_operator.core.tally import Contribution, Tally

verdicts = st.just(READY) | st.builds(
    Verdict,
    st.sampled_from(NodeBucket),
    st.sampled_from([Reason.APPLYING, Reason.KERNEL_ERROR]),
    st.sampled_from(["", "why"]),
)
statistics = st.builds(
    Statistics,
    folios_migrated=st.none() | st.integers(0, 10**15),
    folios_per_second=st.none() | st.decimals(0, 10**6, places=3).map(str),
    pages_demoted=st.none() | st.just(0),
)
losses = st.lists(st.builds(Loss, st.sampled_from(SettingsGroup), st.sampled_from("ab")), unique=True, max_size=2).map(
    tuple
)
contributions = st.builds(Contribution, verdicts, st.booleans(), losses, st.none() | st.sampled_from(["equal"]))
histories = st.lists(st.tuples(st.sampled_from("xyz"), st.none() | contributions), max_size=30)
numbers = st.lists(st.tuples(st.sampled_from("xyz"), st.none() | statistics), max_size=30)


def counted(history: list[tuple[str, Contribution | None]]) -> tuple[Tally, dict[str, Contribution]]:
    tally, now = Tally(), dict[str, Contribution]()
    for name, new in history:
        tally.replace(name, now.pop(name, None), new)
        if new is not None:
            now[name] = new
    return tally, now


def summed(history: list[tuple[str, Statistics | None]]) -> tuple[Tally, dict[str, Statistics | None]]:
    tally, now = Tally(), dict[str, Statistics | None]()
    for name, new in history:
        tally.renumber(now.get(name), new)
        now[name] = new
    return tally, now


def sums_of(*some: Statistics | None) -> PolicyStatistics | None:
    return summed([(str(name), one) for name, one in enumerate(some)])[0].statistics()


@given(histories)
def test_counting_by_difference_equals_a_recount(history: list[tuple[str, Contribution | None]]) -> None:
    tally, now = counted(history)
    fresh, _ = counted(list(now.items()))

    assert +tally.buckets == +fresh.buckets
    assert tally.names == fresh.names
    assert tally.drifted == fresh.drifted
    assert tally.losses == fresh.losses
    assert +tally.plans == +fresh.plans


@given(numbers)
def test_summing_by_difference_equals_a_recount(history: list[tuple[str, Statistics | None]]) -> None:
    tally, now = summed(history)

    assert tally.statistics() == sums_of(*now.values())


@given(histories)
def test_every_matched_node_is_in_exactly_one_count(history: list[tuple[str, Contribution | None]]) -> None:
    """Promise 11: the counts are a partition."""
    tally, now = counted(history)

    assert tally.matched == len(now)
    assert +tally.buckets == Counter(one.verdict.bucket for one in now.values())
    named = Counter(name for names in tally.names.values() for name in names)
    assert named == Counter(name for name, one in now.items() if one.verdict != READY)


@given(st.lists(statistics, max_size=5))
def test_a_counter_that_no_node_has_is_absent_and_not_zero(some: list[Statistics]) -> None:
    sums = sums_of(*some) or PolicyStatistics()

    demoted = [one.pages_demoted for one in some if one.pages_demoted is not None]
    rates = [Decimal(one.folios_per_second) for one in some if one.folios_per_second is not None]
    assert sums.pages_demoted == (sum(demoted) if demoted else None)
    assert sums.pages_promoted is None
    assert (sums.folios_per_second and Decimal(sums.folios_per_second)) == (sum(rates) if rates else None)


def test_the_sums_say_how_many_nodes_are_in_them() -> None:
    found = sums_of(Statistics(folios_migrated=0), Statistics(), None)

    assert found == PolicyStatistics(nodes=1, folios_migrated=0)


def test_what_the_drivers_refused_is_summed_where_they_count_it() -> None:
    found = sums_of(Statistics(batches_refused=2, folios_refused=3), Statistics(batches_refused=5))

    assert found == PolicyStatistics(nodes=2, batches_refused=7, folios_refused=3)


def test_a_node_that_counts_nonsense_does_not_break_the_whole_status() -> None:
    """The API server takes no number beyond 64 bits, and refuses the status with it."""
    much = Statistics(folios_migrated=2**63 - 1)

    assert sums_of(much, much) == PolicyStatistics(nodes=2, folios_migrated=2**63 - 1)


def test_there_are_no_sums_when_no_node_counts() -> None:
    assert sums_of(Statistics()) is None

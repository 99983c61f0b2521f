# SPDX-License-Identifier: Apache-2.0
"""docs/performance.md and its figures, made from benchmarks/results/: ``make performance-page``.

``page.md`` is the page, ``limits.md`` its section on limits; both are written by hand, with places for what results
hold (``fill``). ``figures`` picks the data of each figure and ``draw`` alone knows how they are drawn.
"""

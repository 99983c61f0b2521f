# SPDX-License-Identifier: Apache-2.0
"""From measurements to the setting that a hardware class shall have: pure, no clock, no I/O, standard library only.

``samples`` has the words, ``measures`` the arithmetic of one search, ``search`` asks for one measurement after the
other, ``choice`` decides and ``explain`` says why. docs/tuning.md has method, literature and limits.
"""

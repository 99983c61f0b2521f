# SPDX-License-Identifier: Apache-2.0
"""How well the tuner chooses, on a model of machines whose numbers others published: ``make bench-tuner``.

``tables`` reads throughputs from CSV, ``world`` makes machines of them, ``deciders`` choose a setting (the tuner, and
those it is compared with), ``judge`` says what the choice costs. No number here is measured.
"""

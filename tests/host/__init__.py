# SPDX-License-Identifier: Apache-2.0
"""This machine's own kernel under test: ``make test-host``. It only reads, unless ``ALLOW_WRITES=1`` says otherwise.

Where writes are allowed, every knob is put back after each test, and that it was is checked; also after Ctrl-C and
SIGTERM. Run it on a spare machine all the same: offload is turned on and off there, with whatever engine it has.

Part of no other target: it is for whoever has a kernel with the series. That it works is shown on the fake kernel
(``tests/unit/test_host_tests.py``).
"""

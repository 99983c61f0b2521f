# SPDX-License-Identifier: Apache-2.0
"""What runs inside the guest: standard library only, and quick to import, for every module is read by an emulated CPU.

``test_*.py`` hold tests: functions without parameters, or with those of ``@cases``. pytest on the host shows each as
one of its own, and runs it in a process of its own in the guest.
"""

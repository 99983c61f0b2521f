# SPDX-License-Identifier: Apache-2.0
"""What commands show, made of decoded objects and a time; no I/O, no clock."""

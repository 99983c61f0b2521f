# SPDX-License-Identifier: Apache-2.0
"""The operator: policies in, node states and policy status out."""

from typing import Final

__version__: Final = "0.1.0"

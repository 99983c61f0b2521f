# SPDX-License-Identifier: Apache-2.0
"""The node agent: one node state in, kernel files and a status out. Standard library only."""

from typing import Final

__version__: Final = "0.1.0"

# SPDX-License-Identifier: Apache-2.0
"""Small ideas that operator and agent both need, one module each; standard library only.

The agent may import nothing third-party, so neither may anything here (import-linter holds the line).
"""

# SPDX-License-Identifier: Apache-2.0
"""One function for each command: it reads, asks a view, prints, and returns the exit code when that is not 0."""

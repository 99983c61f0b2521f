# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with the test bed itself; each message says what is missing and what to do."""

from __future__ import annotations


class BedError(Exception):
    """Base of everything the test bed raises about itself (answers of the API server are ``api.ApiError``)."""


class MissingNeedError(BedError):
    """The machine lacks something the bed needs: Go, a binary, a network to build from."""


class ServerDiedError(BedError):
    """A server ended by itself; the message ends with the last lines of its log."""


class WaitTimeoutError(BedError):
    """Something awaited did not come true within its bound."""

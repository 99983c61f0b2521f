# SPDX-License-Identifier: Apache-2.0
"""The thin edges towards the API server: client, informers, applier, events."""

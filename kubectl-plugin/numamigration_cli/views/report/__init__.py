# SPDX-License-Identifier: Apache-2.0
"""One page about the whole fleet, to look at or to send: a file that needs no network.

``facts`` makes data of objects, with ``moments`` (when what happened) and ``traffic`` (what was counted); ``page``
makes one HTML document of these data, part by part. ``elements`` is all that knows of HTML: nothing is escaped by hand.
"""

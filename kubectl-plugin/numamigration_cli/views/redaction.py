# SPDX-License-Identifier: Apache-2.0
"""What a support bundle leaves out: secrets, and what nobody reads.

Secret objects are never asked for. What people put where it does not belong, a password in a variable or a token in a
log line, is taken out by what it looks like; so look before you send.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

REMOVED: Final = "(removed)"
SECRET_NAME: Final = re.compile(r"token|passw|secret|credential|api_?key|private|authorization|cookie", re.IGNORECASE)
SECRET_TEXT: Final = (
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}(\.[\w-]*)?"), REMOVED),  # a JSON web token
    (re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1 {REMOVED}"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), REMOVED),
    (re.compile(r"(://[^/\s:@]+:)[^/\s@]+@"), rf"\1{REMOVED}@"),  # a password in a URL
    (
        re.compile(
            r"\b((?:\w*(?:token|password|passwd|secret|api_?key))[\"']?\s*[=:]\s*[\"']?)[^\s\"',}]+", re.IGNORECASE
        ),
        rf"\1{REMOVED}",
    ),
)
SKIPPED: Final = frozenset({"managedFields", "kubectl.kubernetes.io/last-applied-configuration"})


def cleaned(value: Any) -> Any:
    """Return an object without what looks like a secret, and without what nobody reads."""
    if isinstance(value, Mapping):
        kept = {key: cleaned(item) for key, item in value.items() if key not in SKIPPED}
        is_variable = isinstance(kept.get("value"), str) and SECRET_NAME.search(str(kept.get("name", "")))
        return kept | {"value": REMOVED} if is_variable else kept
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    return cleaned_text(value) if isinstance(value, str) else value


def cleaned_text(text: str) -> str:
    """Return text without what looks like a secret."""
    for pattern, replacement in SECRET_TEXT:
        text = pattern.sub(replacement, text)
    return text

# SPDX-License-Identifier: Apache-2.0
"""The CustomResourceDefinitions that this release carries: the YAML that ``numamigration_api.generate`` wrote.

Not made anew from the models here: what is installed is what was reviewed, whatever pydantic is beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from numamigration_api.vocabulary import POLICY_PLURAL, PROFILE_PLURAL, STATE_PLURAL

FILES: Final = (f"{POLICY_PLURAL}.yaml", f"{STATE_PLURAL}.yaml", f"{PROFILE_PLURAL}.yaml")


def definitions() -> dict[str, str]:
    """Return the text of each file, by its name.

    Raises:
        OSError: this copy of the package has no such files: the node agent's has none.
    """
    return {name: (folder() / name).read_text(encoding="utf-8") for name in FILES}


def folder() -> Path:
    """Return where the files are: in a wheel inside the package, in the source tree beside it (pyproject.toml)."""
    package = Path(__file__).parent
    packed = package / "crds"
    return packed if packed.is_dir() else package.parent

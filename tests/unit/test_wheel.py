# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from numamigration_api.definitions import FILES

ROOT = Path(__file__).parents[2]


def test_a_wheel_has_the_crds_where_they_are_looked_for(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "installed")

    code = "from numamigration_api.definitions import definitions; print(definitions())"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'installed')!r}); {code}"],
        check=True,
        capture_output=True,
        text=True,
    )

    assert done.stdout.strip() == str({name: (ROOT / "crds" / name).read_text() for name in FILES})

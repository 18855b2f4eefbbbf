"""The same builders as for the encoder's tests."""

import runpy
from pathlib import Path

# Test folders are no packages, so the file is run instead of imported.
_BUILDERS = runpy.run_path(str(Path(__file__).parent.parent / "encoder" / "conftest.py"))
make = _BUILDERS["make"]
encoders = _BUILDERS["encoders"]

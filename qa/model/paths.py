"""Where things are."""

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CATALOGUE = Path(os.environ.get("CLAWOS_CATALOGUE", ROOT / "policies/tools"))
CORPUS = HERE / "corpus"
MODEL = HERE / "builtin.gguf"

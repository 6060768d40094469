"""Where things are."""

from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CATALOGUE = ROOT / "policies/tools"
CORPUS = HERE / "corpus"
MODEL = HERE / "builtin.gguf"

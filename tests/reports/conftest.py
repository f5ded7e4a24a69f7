"""Figures are drawn from the same synthetic run that the tests of tables use."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "results"))

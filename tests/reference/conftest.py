"""Modules beside the tests, and the generator of the differential tests, are imported by name."""

from __future__ import annotations

import sys
from pathlib import Path

_TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(_TESTS / "reference"), str(_TESTS / "differential")]

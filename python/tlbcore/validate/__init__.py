"""Validation: how close the model comes to the flushes that the real kernel did.

`validate` holds one recording against the model, `explain` groups what disagrees by its likely cause, and
`validate_folder` does both for many recordings. `docs/validate.md` has the method, `docs/how-true.md` the results.
"""

from tlbcore.validate.example import Example, Line
from tlbcore.validate.explain import Cause, explain, merge
from tlbcore.validate.folder import Failure, Row, Summary, find_recordings, validate_folder
from tlbcore.validate.proofs import Shown, proofs
from tlbcore.validate.rules import COLUMN_RULES, RULES, Rule
from tlbcore.validate.scores import Validation, flush_text, validate
from tlbcore.validate.undecided import KINDS, Undecided

__all__ = [
    "COLUMN_RULES",
    "KINDS",
    "RULES",
    "Cause",
    "Example",
    "Failure",
    "Line",
    "Row",
    "Rule",
    "Shown",
    "Summary",
    "Undecided",
    "Validation",
    "explain",
    "find_recordings",
    "flush_text",
    "merge",
    "proofs",
    "validate",
    "validate_folder",
]

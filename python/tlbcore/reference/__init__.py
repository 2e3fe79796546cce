"""The machine in slow, plain Python: the executable specification, and the oracle of the tests.

Written from `docs/machine.md` and `docs/steps.md`; it shares no code with the compiled core, so that both agreeing
means something. Clarity goes before speed.
"""

from tlbcore.reference.errors import ModelError, StepError, UsageError
from tlbcore.reference.machine import ReferenceMachine

__all__ = ["ModelError", "ReferenceMachine", "StepError", "UsageError"]

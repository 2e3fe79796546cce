"""The operations (machine.md, section 4): what is checked and prepared before a program runs."""

from tlbcore.reference.operations import advice, custom, fault, file, mapping, process, reclaim
from tlbcore.reference.operations.lookup import Operation

OPERATIONS: dict[str, Operation] = (
    process.OPERATIONS
    | mapping.OPERATIONS
    | advice.OPERATIONS
    | file.OPERATIONS
    | reclaim.OPERATIONS
    | fault.OPERATIONS
    | custom.OPERATIONS
)

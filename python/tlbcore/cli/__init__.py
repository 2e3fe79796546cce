"""The command ``tlbcore``: arguments in, text or JSON out; whatever it computes is a public function elsewhere.

A command is a module of this package with ``add_arguments`` and ``run`` (see :class:`tlbcore.cli.main.CommandModule`)
and an entry in ``tlbcore.cli.main.COMMANDS``. What ``run`` returns is the exit status, one of those below.
"""

from typing import Final

OK: Final = 0
"""Fine."""

NEGATIVE: Final = 1
"""A negative verdict: a race was found, a prediction missed."""

USAGE: Final = 2
"""A usage or input error, told in one line; argparse exits with the same."""

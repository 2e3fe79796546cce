"""``python -m tlbcore`` is the command ``tlbcore``."""

import sys

from tlbcore.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

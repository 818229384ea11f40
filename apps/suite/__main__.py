"""`python -m apps.suite`: the same as the command `tessera`."""

import sys

from apps.suite.cli import main

if __name__ == "__main__":
    sys.exit(main())

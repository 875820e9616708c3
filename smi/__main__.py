"""`python -m smi`, and the console script `smi`."""

import sys

from smi.command_line.main import main

if __name__ == "__main__":
    sys.exit(main())

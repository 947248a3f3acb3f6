"""``python -m dhmpi COMMAND ...``, the same as the console command ``dhmpi``."""

import sys

from dhmpi.commands import main

if __name__ == "__main__":
    sys.exit(main())

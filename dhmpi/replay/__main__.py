"""``python -m dhmpi.replay``."""

import sys

from dhmpi.replay import main

if __name__ == "__main__":
    sys.exit(main())

"""``python -m gcpzoo`` is ``gcpzoo``."""

import sys

from gcpzoo.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

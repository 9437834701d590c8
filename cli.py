#!/usr/bin/env python
"""The command line from a checkout: ``python cli.py …`` is ``gcpzoo …``."""

import sys

from gcpzoo.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

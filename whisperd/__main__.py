"""Runs the command line for `python -m whisperd`."""

import sys

from whisperd.cli import main

sys.exit(main())

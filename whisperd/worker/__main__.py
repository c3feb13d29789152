"""The command `python -m whisperd.worker FD`, which the supervisor runs."""

import sys

from whisperd.worker.boot import main

sys.exit(main(int(sys.argv[1])))

"""`python -m whisperd.worker FD`: started by the supervisor, of no use by hand."""

import sys

from whisperd.worker.main import main

sys.exit(main(int(sys.argv[1])))

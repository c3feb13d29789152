"""`python -m whisperd.bench FD`: another program under measurement, started by `whisperd bench`; of no use by hand."""

import sys
from multiprocessing.connection import Connection

from whisperd.bench.peer import serve

serve(Connection(int(sys.argv[1])))

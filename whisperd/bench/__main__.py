"""`python -m whisperd.bench FD`: the process in which `whisperd bench` runs another program; not for use by hand."""

import sys
from multiprocessing.connection import Connection

from whisperd.bench.programs import serve

serve(Connection(int(sys.argv[1])))

"""`python -m whisperd.bench FD`: another program under measurement, started by `whisperd bench`; of no use by hand."""

import socket
import sys

from whisperd.bench.peer import ANSWERED, ASKED, serve
from whisperd.protocol import PipeEnd

serve(PipeEnd(socket.socket(fileno=int(sys.argv[1])), ANSWERED, ASKED))

"""The shipped NFS export as exportfs(8) reads it; no kernel with an NFS server is needed for that."""

import re
import subprocess

from support.shared_spool import REPOSITORY, ROOT, needs

pytestmark = needs("exportfs", "unshare", "mount")

# in a mount namespace of its own: what exportfs notes down never reaches this machine
SCRIPT = """\
set -e
mount -t tmpfs tmpfs /var/lib/nfs && touch /var/lib/nfs/etab
mkdir /var/lib/nfs/spool && mount --bind /var/lib/nfs/spool /srv
sed 's|^{root} |/srv |' {exports} > /var/lib/nfs/exports && mount --bind /var/lib/nfs/exports /etc/exports
exportfs -a 2>&1 || true  # it cannot tell the kernel
echo 'table:' && cat /var/lib/nfs/etab
"""


def test_exportfs_understands_the_export():
    """Every option is known, and those that matter are as the comments say."""
    script = SCRIPT.format(root=ROOT, exports=REPOSITORY / "config/exports")
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    complaints, _, table = said.partition("table:\n")
    (path, options) = re.fullmatch(r"(\S+)\s+192\.168\.0\.0/24\((.*)\)\n", table).groups()

    assert complaints == ""
    assert path == "/srv"
    assert {"rw", "sync", "root_squash", "no_subtree_check", "sec=sys"} <= set(options.split(","))

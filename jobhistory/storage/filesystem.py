"""Which filesystem a file lies on, where the system tells: a history needs one of this machine's own."""

from __future__ import annotations

import os
import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")

# Several machines may use these at once; SQLite's log needs memory that its users share, and locks that hold
# (https://www.sqlite.org/wal.html, https://www.sqlite.org/howtocorrupt.html).
SHARED_BY_MACHINES = frozenset(
    (
        *("afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre"),
        *("ncpfs", "nfs", "nfs4", "smb2", "smb3", "smbfs"),
        *("fuse.ceph", "fuse.gcsfuse", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"),
    )
)
# These serve machines beside each other, or a virtual one and its host, and may or may not be set up so that all of
# that holds.
SHARED_PERHAPS = frozenset(("9p", "afpfs", "coda", "gfs2", "fuse.juicefs", "ocfs2", "orangefs", "vboxsf", "virtiofs"))


def filesystem_of(path: str | os.PathLike[str]) -> str | None:
    """The type of the filesystem that holds `path`, as Linux names it ("ext4", "nfs4"); None where nobody tells.

    The source is /proc/self/mountinfo (https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html).
    """
    try:
        device = Path(path).stat().st_dev
        mounts = _MOUNTS.read_text(errors="replace")
    except OSError:
        return None
    number = f"{os.major(device)}:{os.minor(device)}"
    found = re.search(rf"^\d+ \d+ {number} .*? - (\S+)", mounts, re.MULTILINE)
    return found and found[1]

"""Files of a folder that others own too: on the disk before one goes on, and of the account that the folder is of."""

import os
from pathlib import Path


def synchronise(path: Path) -> None:
    """Have what was written to a file, or what names a folder has, on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hand_to_owner(path: Path, *, of: Path) -> None:
    """What root writes into a folder of another account (a command by hand) belongs to that account, with its folders.

    The workers run as that account (``esper_site.embedded.privileges``) and must be able to go on.
    """
    owner = of.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    while path != of and of in path.parents:
        os.chown(path, owner.st_uid, owner.st_gid)
        path = path.parent

"""Become one supervised program: die with the supervisor, leave root where asked, then exec.

A file of its own, started as a script with the standard library alone (about 15 ms): doing this between fork and
exec inside a threaded supervisor could deadlock. It must not import anything of the project.
"""

import argparse
import ctypes
import os
import signal
import struct
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_SECUREBITS = 28
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CLONE_NEWUSER = 0x10000000
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_OVERRIDE = 1
_CAP_DAC_READ_SEARCH = 2
_NOBODY = 65534
_INSIDE = 1000


def enter_user_namespace() -> bool:
    """Enter a user namespace as uid 1000, while files stay root's; return False if the system forbids it."""
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWUSER):
        return False
    try:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{_INSIDE} {uid} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{_INSIDE} {gid} 1", encoding="ascii")
    except OSError:
        return False
    return True


def drop_root(uid: int) -> None:
    """Change to `uid` for good; keep only the right to pass through folders that root alone may enter.

    A checkout below /root is out of reach of any other uid; copying the servers out of it would be worse.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    linux = sys.platform == "linux"
    if linux:
        # Keeps capabilities across the change of uid, and lets access(2), which PostgreSQL calls on its own
        # path, see them.
        libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    if not linux:
        return
    for capability in (_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE):
        mask = 1 << capability
        header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
        if libc.capset(header, struct.pack("6I", mask, mask, mask, 0, 0, 0)):
            continue  # not among our own; the next one may be
        libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0)
        return
    libc.capset(struct.pack("Ii", _CAPABILITY_VERSION_3, 0), bytes(24))


def die_with_parent(parent: int, number: int) -> None:
    """Ask the kernel to send signal `number` when the supervisor dies; exit at once if it is already dead.

    Last before exec: the kernel forgets the wish whenever credentials change.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the supervisor is gone")


def main() -> None:
    """Read the command line, change what must change, exec."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--death-signal", type=int, default=int(signal.SIGTERM))
    parser.add_argument("--leave-root", choices=("no", "namespace", "uid"), default="no")
    parser.add_argument("argv", nargs="+")
    arguments = parser.parse_args()
    os.umask(0o077)  # data and logs of a stack are its owner's alone
    if arguments.leave_root == "namespace" and not enter_user_namespace():
        sys.exit("user namespaces are forbidden here")
    if arguments.leave_root == "uid":
        drop_root(_NOBODY)
    die_with_parent(arguments.parent, arguments.death_signal)
    os.execvp(arguments.argv[0], arguments.argv)  # noqa: S606 - replacing ourselves without a shell is the purpose


if __name__ == "__main__":
    main()

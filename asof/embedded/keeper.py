"""Stops the embedded server when nobody is left to do it: its users were all killed.

Every user of the server holds a shared lock on one file for as long as it lives, and the kernel drops the lock of a
killed process. The keeper waits for the exclusive lock, which it gets when the last user is gone, and then shuts the
server down through its socket (a process id could have been given to somebody else by then).
It runs as a process of its own from this file's source, so it imports nothing but the standard library.
"""

from __future__ import annotations

import fcntl
import socket
import sys


def keep(lock_file: str, socket_path: str) -> None:
    with open(lock_file, "rb") as lock:  # noqa: PTH123  (this file starts faster without pathlib)
        fcntl.flock(lock, fcntl.LOCK_EX)
        shut_down(socket_path)


def shut_down(socket_path: str) -> None:
    """Returns when the server has closed the connection, which it does as it ends."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(socket_path)
            connection.sendall(b"SHUTDOWN\r\n")
            connection.recv(64)
    except OSError:
        return  # it is down already, which is what was wanted


if __name__ == "__main__":
    keep(sys.argv[1], sys.argv[2])

"""Runs a command for as long as whoever started it lives: after that its end of the pipe to stdin is closed."""

import os
import signal
import subprocess
import sys
import threading


def _watch() -> None:
    """Wait for the end of stdin, then kill the whole group of processes, this one included."""
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: None)  # for the command, which may take its time; its end ends this one
    threading.Thread(target=_watch, daemon=True).start()
    sys.exit(subprocess.call(sys.argv[1:], stdin=subprocess.DEVNULL))

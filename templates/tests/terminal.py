"""A terminal for a command."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

import pytest

END = "\0"


@contextmanager
def terminal() -> Iterator[list[str]]:
    """Make standard error a terminal; in the end the list holds the lines that it shows."""
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")  # not on Windows
    reader, writer = pty.openpty()
    termios.tcsetwinsize(writer, (24, 100))
    lines, written = list[str](), b""
    with os.fdopen(writer, "w", encoding="utf-8") as screen, redirect_stderr(screen):
        yield lines
        print(END, end="", file=screen, flush=True)
        while not written.endswith(END.encode()):  # macOS drops what is unread at the end
            written += os.read(reader, 4096)
    os.close(reader)
    shown = written.decode().removesuffix(END).replace("\x1b[A", "").split("\r\n")
    lines += [line.split("\r")[-1].rstrip() for line in shown if line.strip()]

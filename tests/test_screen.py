"""The terminal's other screen, in a pseudo-terminal: drawn over whole at every size, and left as the terminal was."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import textwrap
import threading
from typing import TYPE_CHECKING, Self

import pytest
import sim_process
from rich.console import Console

from simulator.errors import Exit
from simulator.report.view import LineView, LiveView, QuietView, open_view
from simulator.report.wording import sentence

if TYPE_CHECKING:
    from pathlib import Path

ENTER, LEAVE, HOME, HIDE, SHOW = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[H", b"\x1b[?25l", b"\x1b[?25h"
CODES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
SHOWN = textwrap.dedent("""\
    import os, sys
    from rich.console import Console
    from rich.text import Text
    from simulator.report.screen import Screen
    console = Console()
    with Screen(console) as screen:
        while said := os.read({pipe}, 1):
            if said == b"!":
                os.write(2, b"said meanwhile\\n")
            screen.show(Text("\\n".join(["x" * console.width] * console.height)))
    print("after", flush=True)
""")


class Terminal:
    """A process whose terminal this is, in a session of its own, and everything that it has written."""

    def __init__(
        self, *command: str, columns: int = 80, lines: int = 24, pass_fds: tuple[int, ...] = (), **env: str
    ) -> None:
        self._here, there = pty.openpty()
        self.resize(columns, lines)
        self._written = bytearray()
        self._heard = threading.Condition()
        environ = sim_process.environment(TERM="xterm-256color", **env)
        self.process = subprocess.Popen(
            command, stdin=there, stdout=there, stderr=there, start_new_session=True, pass_fds=pass_fds, env=environ,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  no thread has started yet in here
        )  # fmt: skip
        os.close(there)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(sim_process.PATIENCE_S)
        self._reader.join(sim_process.PATIENCE_S)
        os.close(self._here)

    @property
    def written(self) -> bytes:
        """Everything so far."""
        with self._heard:
            return bytes(self._written)

    def resize(self, columns: int, lines: int) -> None:
        """Makes the terminal as large as this."""
        fcntl.ioctl(self._here, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, key: bytes) -> None:
        """What a key sends."""
        os.write(self._here, key)

    def wait_for(self, text: bytes, after: int = 0) -> int:
        """Until this has been written behind a position; where it ends."""
        with self._heard:
            found = self._heard.wait_for(lambda: self._written.find(text, after) >= 0, sim_process.PATIENCE_S)
            assert found, bytes(self._written)
            return self._written.find(text, after) + len(text)

    def end(self) -> tuple[int, bytes]:
        """Its exit code, and everything that it has written."""
        code = self.process.wait(sim_process.PATIENCE_S)
        self._reader.join(sim_process.PATIENCE_S)
        return code, self.written

    def _read(self) -> None:
        while True:
            try:
                piece = os.read(self._here, 65_536)
            except OSError:  # nobody has the other end any more
                return
            with self._heard:
                self._written += piece
                self._heard.notify_all()


def cells(frame: bytes) -> list[str]:
    """The lines that a frame covers, without their colours."""
    return [CODES.sub(b"", line).decode() for line in frame.split(b"\r\n")]


def plain(written: bytes) -> str:
    """What is left to read once the other screen is gone: words, without colours and line breaks."""
    return " ".join(
        CODES.sub(b"", re.sub(rb"\x1b\[\?1049h.*?\x1b\[\?1049l", b"", written, flags=re.DOTALL)).decode().split()
    )


def test_every_frame_covers_the_whole_terminal_whatever_its_size() -> None:
    read, write = os.pipe()
    with Terminal(sys.executable, "-c", SHOWN.format(pipe=read), pass_fds=(read,)) as terminal:
        os.close(read)
        at = 0
        for columns, lines in ((80, 24), (60, 20), (132, 43), (200, 60), (20, 5)):
            terminal.resize(columns, lines)
            os.write(write, b".")
            last = b"x" * columns
            begin = terminal.wait_for(HOME, at)
            # Each line is written to its end, so there is no cell that something older could be seen in.
            for _ in range(lines):
                at = terminal.wait_for(last, max(at, begin))
            assert cells(terminal.written[begin:at]) == ["x" * columns] * lines
        os.close(write)
        code, written = terminal.end()
    assert code == 0
    assert written.endswith(b"after\r\n")
    assert written.rindex(ENTER) < written.rindex(LEAVE) < written.rindex(b"after")
    assert written.rindex(HIDE) < written.rindex(SHOW)


def test_what_is_said_on_standard_error_meanwhile_is_kept_for_the_terminal_as_it_was() -> None:
    read, write = os.pipe()
    with Terminal(sys.executable, "-c", SHOWN.format(pipe=read), pass_fds=(read,)) as terminal:
        os.close(read)
        os.write(write, b"!.")
        os.close(write)
        code, written = terminal.end()
    assert code == 0
    assert written.count(b"said meanwhile") == 1
    assert written.rindex(LEAVE) < written.index(b"said meanwhile")


def test_ctrl_z_leaves_the_screen_and_going_on_takes_it_again() -> None:
    read, write = os.pipe()
    with Terminal(sys.executable, "-c", SHOWN.format(pipe=read), pass_fds=(read,)) as terminal:
        os.close(read)
        os.write(write, b".")
        at = terminal.wait_for(b"x")
        # A session's first process cannot be stopped by its terminal, so this one goes on at once.
        terminal.press(b"\x1a")
        left = terminal.wait_for(LEAVE, at)
        terminal.wait_for(ENTER, left)
        os.close(write)
        code, written = terminal.end()
    assert code == 0
    assert written.endswith(b"after\r\n")


def small(folder: Path, *settings: str) -> tuple[str, ...]:
    return (
        *sim_process.SIM,
        "run",
        str(sim_process.scenario(folder)),
        "--out",
        str(folder),
        *sim_process.settings(*settings),
    )


def test_ctrl_c_drains_and_leaves_the_terminal_clean_with_the_sentence_of_the_report_last(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with Terminal(*small(folder, "duration=60s"), columns=100, lines=30) as terminal:
        terminal.wait_for(b"completed")
        terminal.resize(60, 20)
        sim_process.until(lambda: any(folder.glob("journal/node-*.journal")), "a journal")
        terminal.press(b"\x03")
        code, written = terminal.end()
    summary = sim_process.Ended(folder, code, "", "").summary
    assert code == Exit.INTERRUPTED
    assert summary["interrupted"]
    assert written.count(ENTER) == written.count(LEAVE) == 1
    assert written.rindex(HIDE) < written.rindex(SHOW)
    assert b"Ctrl-C" not in CODES.sub(b"", written[written.rindex(LEAVE) :])
    assert plain(written).endswith(" ".join(sentence(summary).split()))


def test_a_second_ctrl_c_leaves_the_terminal_clean_too(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    # Nothing that was sent is answered within the test: the nodes stand still.
    with Terminal(
        *small(folder, "duration=60s", 'faults=[{at: 100ms, fault: pause, target: "node[0]", for: 50s}]')
    ) as terminal:
        terminal.wait_for(b"58s left")
        terminal.press(b"\x03")
        terminal.wait_for(b"draining")
        terminal.press(b"\x03")
        code, written = terminal.end()
    assert code == Exit.INTERRUPTED
    assert written.count(ENTER) == written.count(LEAVE) == 1
    assert written.rindex(LEAVE) < written.index(b"sim: stopped at once")


@pytest.mark.parametrize(
    ("environ", "encoding", "quiet", "expected"),
    [
        ({"TERM": "xterm-256color"}, "utf-8", False, LiveView),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, "utf-8", False, LiveView),
        ({"TERM": "dumb"}, "utf-8", False, LineView),
        ({"TERM": "xterm-256color"}, "ascii", False, LineView),
        ({"TERM": "xterm-256color"}, "utf-8", True, QuietView),
    ],
)
def test_the_view_suits_the_terminal(environ: dict[str, str], encoding: str, quiet: bool, expected: type) -> None:  # noqa: FBT001  a parameter of the test
    here, there = pty.openpty()
    with os.fdopen(there, "w", encoding=encoding) as file:
        assert type(open_view(Console(file=file, _environ=environ), quiet)) is expected
    os.close(here)


def test_a_log_that_wants_colours_is_still_a_log() -> None:
    forced = Console(file=io.StringIO(), _environ={"TERM": "xterm-256color", "FORCE_COLOR": "1"})
    assert forced.is_terminal  # rich means its colours
    assert type(open_view(forced, quiet=False)) is LineView

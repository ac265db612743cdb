"""Progress on layers: what is drawn in a terminal of any size, what a pipe gets, and that nobody waits for it."""

import subprocess
import sys
import threading

import pytest

from orchctl import progressbars, terminal
from orchctl.progressbars import Stand
from tests.support import orchctl


def stand(title: str, doing: str, done: int = 0, total: int | None = None) -> Stand:
    return Stand(title=title, doing=doing, done_bytes=done, total_bytes=total)


def test_a_frame_lines_up_and_shows_what_is_done_first() -> None:
    stands = [
        stand("4f53cda18c2b", "downloading", 3 << 20, 12 << 20),
        stand("9c1b6dd6c1e6", "done", 100, 100),
        stand("0a1b2c3d4e5f", "waiting"),
        stand("aaaaaaaaaaaa", "unpacking", 2048, None),
    ]
    assert progressbars.frame(stands, width=100, height=10) == [
        "9c1b6dd6c1e6  done",
        "4f53cda18c2b  downloading  ██████░░░░░░░░░░░░░░░░░░     3.0Mi / 12.0Mi",
        "0a1b2c3d4e5f  waiting",
        "aaaaaaaaaaaa  unpacking    2.0Ki",
    ]


@pytest.mark.parametrize("height", [1, 2, 5, 40])
@pytest.mark.parametrize("width", [10, 39, 200])
def test_a_frame_is_never_larger_than_the_terminal(width: int, height: int) -> None:
    stands = [stand(f"{number:012x}", "done" if number < 20 else "pushing", number, 100) for number in range(30)]
    lines = progressbars.frame(stands, width=width, height=height)
    assert len(lines) == min(height, 30)
    assert all(terminal.columns(line) <= width for line in lines)
    if height == 5 and width == 200:
        assert lines[0] == "… 20 done, 6 more"


def test_names_from_elsewhere_cannot_move_the_cursor() -> None:
    (line,) = progressbars.frame([stand("evil\x1b[2J", "pulling\n")], width=80, height=5)
    assert "\x1b" not in line
    assert "\n" not in line


PIPED = """
from orchctl import progressbars
with progressbars.shown() as bars:
    bars.step("sha256:" + "ab" * 32, "downloading", 0, 5 << 20)
    for done in range(100):
        bars.step("sha256:" + "ab" * 32, "downloading", done, 5 << 20)
    bars.step("sha256:" + "ab" * 32, "unpacking", 0, None)
    bars.step("sha256:" + "cd" * 32, "exists", 0, None)
    bars.step("sha256:" + "ab" * 32, "done", 5 << 20, 5 << 20)
print("and then")
"""


def test_a_pipe_gets_a_line_a_change_and_nothing_on_standard_output() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PIPED], cwd=orchctl.ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "and then\n"
    assert done.stderr.splitlines() == [
        "abababababab: downloading 5.0Mi",
        "abababababab: unpacking",
        "cdcdcdcdcdcd: exists",
        "abababababab: done",
    ]


def test_many_threads_may_tell_at_once() -> None:
    bars = progressbars.Bars(live=False)
    digests = [f"sha256:{number:064x}" for number in range(8)]

    def work(digest: str) -> None:
        for done in range(200):
            bars.step(digest, "pushing", done, 200)
        bars.step(digest, "done", 200, 200)

    threads = [threading.Thread(target=work, args=(digest,)) for digest in digests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bars.close()
    assert {each.doing for each in bars.stands()} == {"done"}
    assert len(bars.stands()) == 8

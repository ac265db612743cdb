"""What reaches a terminal, and how it is drawn there."""

import pytest

from orchctl import screen, terminal
from orchctl.progress import Phase, Progress, Target


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünicode 世界\n\tindented", "plain ünicode 世界\n\tindented"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("title \x1b]0;x\x07", r"title \x1b]0;x\x07"),
        ("over\rwritten", r"over\rwritten"),
        ("c1 \x9b2J", r"c1 \x9b2J"),
        ("turned \u202e around", r"turned \u202e around"),
        ("del \x7f", r"del \x7f"),
    ],
)
def test_control_characters_are_shown_not_sent(text: str, shown: str) -> None:
    assert terminal.clean(text) == shown


def test_colours_of_a_log_line_stay_and_nothing_else() -> None:
    cleaned = terminal.clean_keeping_colours("\x1b[1;31mred\x1b[0m \x1b[2J\x1b]0;title\x07")
    assert cleaned == "\x1b[1;31mred\x1b[0m " + r"\x1b[2J\x1b]0;title\x07" + terminal.RESET


def test_a_line_that_ends_in_colour_does_not_colour_the_next() -> None:
    assert terminal.clean_keeping_colours("\x1b[31mred").endswith(terminal.RESET)
    assert terminal.clean_keeping_colours("plain") == "plain"


@pytest.mark.parametrize(("text", "width", "shown"), [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("世界世", 5, "世界…")])
def test_cutting_counts_columns(text: str, width: int, shown: str) -> None:
    assert terminal.cut(text, width) == shown
    assert terminal.columns(shown) <= width


def target(name: str) -> Target:
    return Target(kind="service", namespace="default", name=name, id=name, generation=1)


def test_a_block_shows_the_unfinished_first_and_their_troubles() -> None:
    stands = {
        target("a"): Progress(phase=Phase.DONE, summary="1 of 1 ready", ready=1, asked=1),
        target("long"): Progress(phase=Phase.WAITING, summary="1 of 2 ready", ready=1, asked=2, troubles=("why \x07",)),
    }
    assert screen.block(stands, 3.4, width=100, height=10) == [
        "… service/long  ██████████░░░░░░░░░░  1 of 2 ready  3 s",
        r"    why \x07",
        "✓ service/a     ████████████████████  1 of 1 ready",
    ]


def test_a_block_is_no_wider_and_no_taller_than_the_terminal() -> None:
    """Else going back up over it would leave lines behind."""
    waiting = Progress(phase=Phase.WAITING, summary="x" * 200, asked=1, troubles=("y" * 200,))
    lines = screen.block({target(f"s{n}"): waiting for n in range(30)}, 0, width=40, height=10)
    assert len(lines) == 10
    assert all(terminal.columns(line) <= 40 for line in lines)
    assert lines[-1] == "… and 51 more"


def test_lines_come_at_most_once_a_second_and_the_last_one_always(capsys: pytest.CaptureFixture[str]) -> None:
    lines = screen.Lines()
    for ready, elapsed_s in ((0, 0.0), (1, 0.1), (2, 0.2)):
        stand = Progress(phase=Phase.WAITING, summary=f"{ready} of 3 ready")
        lines.show({target("a"): stand}, elapsed_s)
    lines.show({target("a"): Progress(phase=Phase.DONE, summary="3 of 3 ready")}, 0.3, last=True)
    assert capsys.readouterr().out.splitlines() == ["service/a: 0 of 3 ready", "service/a: 3 of 3 ready"]

"""Two clusters on one machine never have the same name or ranges, whatever checkout they come from."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local import claims, errors, plan

HOLDS = """\
import sys
from pathlib import Path
from deploy.local import claims
chosen, _ = claims.lan([], "the other", Path(sys.argv[1]))
print(chosen.network, flush=True)
sys.stdin.read()
"""


def test_whoever_comes_second_gets_the_next_ranges(tmp_path: Path) -> None:
    """Also at the same moment, when neither has made a link yet; and what was given up is free again."""
    first, held = claims.lan([], "one", tmp_path)
    second, also_held = claims.lan([], "two", tmp_path)
    assert (first.network, second.network) == ("10.111.0.0/24", "10.121.0.0/24")
    assert (tmp_path / "10.111.0.0").read_text() == "held by: one\n"
    os.close(held)
    third, again = claims.lan([], "three", tmp_path)
    assert third == first
    assert (tmp_path / "10.111.0.0").read_text() == "held by: three\n"
    for descriptor in (also_held, again):
        os.close(descriptor)


def test_a_claim_ends_with_the_process_that_held_it(tmp_path: Path) -> None:
    """`kill -9` included."""
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "10.111.0.0/24\n"
        with contextlib.ExitStack() as mine:
            chosen, descriptor = claims.lan([], "mine", tmp_path)
            mine.callback(os.close, descriptor)
            assert chosen.network == "10.121.0.0/24"
        other.kill()
        other.wait()
    chosen, descriptor = claims.lan([], "mine", tmp_path)
    os.close(descriptor)
    assert chosen.network == "10.111.0.0/24"


def test_a_claim_lasts_as_long_as_anybody_has_a_copy_of_it(tmp_path: Path) -> None:
    """`up` ends, and the supervisor goes on; the supervisor ends, and the sweeper is not done yet."""
    descriptor = claims.name("local", "one", tmp_path)
    copy = os.dup(descriptor)
    os.close(descriptor)
    with pytest.raises(errors.Taken):
        claims.name("local", "two", tmp_path)
    os.close(copy)
    os.close(claims.name("local", "two", tmp_path))


def test_whose_a_name_is_is_told(tmp_path: Path) -> None:
    descriptor = claims.name("local", "cluster local, /state/local", tmp_path)
    told = re.escape("another cluster called local is up: held by: cluster local, /state/local")
    with pytest.raises(errors.Taken, match=told) as refusal:
        claims.name("local", "cluster local, /elsewhere", tmp_path)
    assert "--name" in refusal.value.hint
    os.close(descriptor)


def test_ranges_that_run_out_are_told(tmp_path: Path) -> None:
    with contextlib.ExitStack() as held:
        for _ in plan.lans([]):
            _, descriptor = claims.lan([], "one of many", tmp_path)
            held.callback(os.close, descriptor)
        with pytest.raises(errors.LocalError, match="no free range"):
            claims.lan([], "one too many", tmp_path)


def test_what_was_removed_at_the_end_is_claimed_anew(tmp_path: Path) -> None:
    """The file goes while its lock is still held, and whoever waits at the old one takes the next."""
    descriptor = claims.name("local", "one", tmp_path)
    chosen, ranges = claims.lan([], "one", tmp_path)
    claims.forget("local", chosen, tmp_path)
    assert not list(tmp_path.iterdir())
    again = claims.name("local", "two", tmp_path)
    os.close(descriptor)
    with pytest.raises(errors.Taken, match="held by: two"):
        claims.name("local", "three", tmp_path)
    for each in (ranges, again):
        os.close(each)

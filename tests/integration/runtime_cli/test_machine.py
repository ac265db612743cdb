"""Any verbs in any order, with kills between and during them: a container is always what its status says.

    ORCH_MACHINE_EXAMPLES=2000 .venv/bin/python -m pytest tests/integration/runtime_cli/test_machine.py

runs more stories than the few of `make test`, until one fails; it is printed.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from runtime import cgroups, client, errors, state
from tests.integration.runtime_cli.conftest import PARENT, Command
from tests.support.lifecycle import ALIVE, Model, Status, Verb
from tests.support.waiting import until
from tests.support.worlds import NAME, Refused, Supervised, Unattended, Variant, Victim, World, struck

pytestmark = pytest.mark.root

EXAMPLES = int(os.environ.get("ORCH_MACHINE_EXAMPLES", "0"))
_SETTLES_S = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A verb, a kill, or both at once."""

    verb: Verb | None = None
    victim: Victim | None = None
    after_ms: float = 0


def steps(world: type[World]) -> st.SearchStrategy[list[Step]]:
    """Sequences that often begin with a container, since most verbs are refused without one."""
    verbs = st.sampled_from(Verb) if world is Supervised else st.sampled_from([v for v in Verb if v is not Verb.ADOPT])
    victims = st.sampled_from(world.victims)
    # A command takes 60 to 150 ms, most of which is its interpreter's start.
    delays = st.floats(0, 20) if world is Supervised else st.one_of(st.floats(0, 20), st.floats(40, 160))
    undisturbed = st.builds(Step, verb=verbs)
    between = st.builds(Step, victim=victims)
    during = st.builds(Step, verb=verbs, victim=victims, after_ms=delays)
    made = st.builds(Step, verb=st.sampled_from([Verb.CREATE, Verb.RUN]))
    cut = st.builds(Step, verb=st.sampled_from([Verb.CREATE, Verb.RUN]), victim=victims, after_ms=delays)
    return st.builds(
        lambda first, rest: [first, *rest],
        st.one_of(made, cut),
        st.lists(st.one_of(undisturbed, during, between), max_size=6),
    )


variants = st.builds(Variant, mapped=st.booleans(), init=st.booleans())


def take(world: World, model: Model, step: Step) -> None:
    """One step, and whether the world is then as the model says."""
    if step.victim is None:
        assert step.verb is not None
        _undisturbed(world, model, step.verb)
    else:
        _disturbed(world, model, step, step.victim)
    _look(world, model, step)


def _disturbed(world: World, model: Model, step: Step, victim: Victim) -> None:
    with struck(world, victim, step.after_ms / 1000) as blow:
        if step.verb is not None:
            try:
                world.do(step.verb)
            except Refused as refusal:
                world.story.append(f"    {refusal}")
            model.was_cut_short(step.verb, asker_gone=victim is Victim.LAUNCHER)
    world.story.append(f"    killed {blow.pid}")
    if world.was_essential(blow.pid):
        model.lost(its_monitor=victim is Victim.MONITOR)


def _undisturbed(world: World, model: Model, verb: Verb) -> None:
    refusal = None
    try:
        world.do(verb)
    except Refused as error:
        refusal = error
        world.story.append(f"    {refusal}")
    assert (refusal is None) in model.verdicts(verb), f"{verb} when {set(model.may_be)}: {refusal or 'was not refused'}"
    model.did(verb, succeeded=refusal is None)


def _look(world: World, model: Model, step: Step) -> None:
    until(
        lambda: model.accepts({world.status()}),
        what=f"after {step}: {sorted(model.may_be)}; it is {world.status()}",
        timeout_s=_SETTLES_S,
    )
    model.saw(world.status())


def finish(world: World) -> None:
    """Whatever was done: what lives can be adopted, and everything can be removed, with nothing left."""
    if isinstance(world, Supervised) and world.status() in ALIVE:
        try:
            with client.adopt(world.root, NAME) as monitor:
                assert monitor.state().pid == state.load(world.root, NAME).pid
        except errors.PeerGone:
            # It was about to end, as a signal takes its time.
            until(lambda: world.status() not in ALIVE, what="who has no monitor has ended", timeout_s=_SETTLES_S)
    world.do(Verb.FORCE)
    until(lambda: not world.leftovers(), what=f"nothing is left, but {world.leftovers()}", timeout_s=_SETTLES_S)


def play(world: World, variant: Variant, sequence: list[Step]) -> None:
    """One container's story."""
    world.reset()
    world.choose(variant)
    world.story = [str(variant)]
    try:
        model = Model(world.table)
        for step in sequence:
            world.story.append(f"{step} from {sorted(model.may_be)}")
            take(world, model, step)
        finish(world)
        assert world.status() is Status.GONE
    except Exception as error:
        # Told here, as a story of kills need not end the same way when it is played again.
        raise AssertionError("\n".join([str(error), "The story:", *world.story, *world.evidence()])) from error


@pytest.fixture
def supervised(rootfs: Path, tmp_path: Path) -> Iterator[Supervised]:
    world = Supervised(str(tmp_path / "state"), str(tmp_path), f"{PARENT}-machine", rootfs)
    yield world
    world.reset()
    world.close()
    cgroups.existing(cgroups.current_layout(), world.parent).delete()


@pytest.fixture
def unattended(command: Command, tmp_path: Path) -> Unattended:
    return Unattended(str(command.root), str(tmp_path), command.parent, command.line, command.rootfs)


def _budget(examples: int) -> settings:
    return settings(
        max_examples=EXAMPLES or examples,
        deadline=None,
        print_blob=True,
        # Not made shorter: played again, with other things going on, a story of kills may end another way.
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@_budget(100)
@given(variant=variants, sequence=steps(Supervised))
def test_a_supervised_container_survives_any_story(
    supervised: Supervised, variant: Variant, sequence: list[Step]
) -> None:
    """Launcher, monitor and first process are killed at drawn moments; nothing is ever in between, nothing stays."""
    play(supervised, variant, sequence)


@_budget(30)
@given(variant=variants, sequence=steps(Unattended))
def test_an_unattended_container_survives_any_story(
    unattended: Unattended, variant: Variant, sequence: list[Step]
) -> None:
    """The command and the first process are killed at drawn moments; nothing is ever in between, nothing stays."""
    play(unattended, variant, sequence)

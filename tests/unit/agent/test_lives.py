"""Lives of tasks in a world of mishaps: whatever happens, the steps keep their promises."""

import dataclasses
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core import actions, restart, steps
from agent.core.observed import Desired, Failure, Life, Observed, Sight, is_unwanted
from agent.core.record import ContainerRecord, Exit
from agent.core.status import status_of
from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.unit.agent.test_around import CROWD
from tests.unit.agent.test_steps import GONE, HOLD, LEAVE, NOW, REMOVE, RUN, STOP, TEMPLATE, WITHDRAWN, at


@given(
    seed=st.integers(0, 2**32),
    desires=st.lists(st.sampled_from([HOLD, RUN, STOP, LEAVE, WITHDRAWN, REMOVE, GONE]), max_size=4),
    template=st.sampled_from([TEMPLATE, CROWD]),
)
@settings(max_examples=400, deadline=None)
def test_every_life_is_lawful(seed: int, desires: list[Desired], template: pb.TaskTemplate) -> None:
    """Whatever the world does: states only rise by the agent's own edges, there is never a second container of a name,
    those around the main one come in their order, nothing is kept after the end, and a life that is wanted over is over
    within a bounded number of steps.
    """
    ordered = sorted(desires, key=lambda desired: (desired.gone, desired.state, desired.withdrawn))
    crowded = [dataclasses.replace(one, template=template) if template is CROWD else one for one in ordered]
    World(random.Random(seed), template).live(crowded)


class World:
    """Carries out steps on a machine made of a few variables, with mishaps drawn from a seed."""

    def __init__(self, chance: random.Random, template: pb.TaskTemplate = TEMPLATE) -> None:
        self.chance = chance
        self.now = NOW
        self.containers: set[str] = set()
        self.ended_well: set[str] = set()
        self.observed = at(states.ASSIGNED)
        self.last = dataclasses.replace(REMOVE, template=template)

    def live(self, desires: list[Desired]) -> None:
        for desired in [*desires, self.last]:
            self.observed = dataclasses.replace(self.observed, failure=None)
            for _ in range(self.chance.randrange(60)):
                if not self.advance(desired):
                    return
        for _ in range(300):
            if not self.advance(self.last):
                return
        raise AssertionError(f"not forgotten after 300 steps: {self.observed}")

    def advance(self, desired: Desired) -> bool:
        before = self.observed
        step = steps.next_step(before, desired, self.now)
        assert step == steps.next_step(before, desired, self.now), "the same state leads to the same step"
        after = self.act(step, before, desired)
        self.observed = after
        assert states.allowed(before.record.state, after.record.state, states.Owner.AGENT)
        assert after.record.restarts >= before.record.restarts
        status = status_of(after, desired)
        assert not (status.ready and states.is_terminal(status.state))
        assert not status.ready or not desired.template.sidecars or "proxy" in self.containers
        if isinstance(step, actions.Forget):
            assert not self.containers, "forgotten with a container"
            assert not after.network_ready, "forgotten with a network"
            assert after.record.root_id is None, "forgotten with users"
            return False
        return True

    def act(self, step: actions.Step, seen: Observed, desired: Desired) -> Observed:
        mishap = self.chance.random()
        if mishap < 0.1 and not isinstance(step, actions.Wait | actions.Enter | actions.NoteExit | actions.Forget):
            final = mishap < 0.03 and isinstance(step, actions.PrepareImage | actions.StartContainer)
            failure = Failure(reason="Bad", message="luck", retry_at=self.now + 50, final=final)
            return dataclasses.replace(seen, failure=failure)
        if not (seen.failure and seen.failure.final):
            seen = dataclasses.replace(seen, failure=None)
        if isinstance(step, actions.ContainerStep):
            sight = self.act_on_container(step, seen.of(step.container), seen, desired)
            return seen.with_one(step.container, sight)
        return self.act_on_task(step, seen)

    def act_on_task(  # noqa: C901 - one case a step
        self, step: actions.TaskStep, seen: Observed
    ) -> Observed:
        change, record = dataclasses.replace, seen.record
        match step:
            case actions.Wait():
                return self.wait(step, seen)
            case actions.Enter():
                return change(seen, record=change(record, state=step.state), failure=None)
            case actions.TakeUsers():
                return change(seen, record=change(record, root_id=self.chance.choice([0, 1 << 20])))
            case actions.FreeUsers():
                assert not self.containers, "another gets the users of a container"
                assert not seen.network_ready, "another gets the users that a network belongs to"
                return change(seen, record=change(record, root_id=None))
            case actions.TakeAddress():
                return change(seen, record=change(record, address="10.0.0.2"))
            case actions.AttachNetwork():
                return change(seen, network_ready=True)
            case actions.Leave():
                return change(seen, record=change(record, leaving_since=self.now))
            case actions.Drain():
                return change(seen, record=change(record, draining_since=self.now))
            case actions.DetachNetwork():
                assert not self.containers, "a container without its network"
                return change(seen, network_ready=False, record=change(record, address=""))
            case actions.RemoveVolumes():
                assert not self.containers, "a container without its volumes"
                assert states.is_terminal(record.state), "nobody waits for the end of what is removed"
                return change(seen, volumes_gone=True)
            case actions.Forget():
                return seen

    def act_on_container(self, step: actions.ContainerStep, sight: Sight, seen: Observed, desired: Desired) -> Sight:
        change, record = dataclasses.replace, sight.record
        match step:
            case actions.PrepareImage():
                return change(sight, image_ready=True)
            case actions.StartContainer():
                self.check_order(step.container, desired)
                self.containers.add(step.container)
                if step.again:
                    record = restart.restarted(record, now_ms=self.now)
                return change(sight, record=change(record, started_at=self.now, unhealthy=""), life=Life.RUNNING)
            case actions.NoteExit() if is_unwanted(desired) or states.is_terminal(seen.record.state):
                return change(sight, exit=None, record=change(record, exit=step.exit))
            case actions.NoteExit():
                return change(sight, exit=None, record=self.noted(step, record, desired))
            case actions.PrepareStop():
                return change(sight, prepare_stop_at=self.now)
            case actions.Stop():
                return change(sight, stop_asked_at=self.now)
            case actions.Kill():
                return change(sight, kill_asked_at=self.now)
            case actions.DeleteContainer():
                self.containers.discard(step.container)
                return change(sight, life=Life.NONE, exit=None, prepare_stop_at=0, stop_asked_at=0, kill_asked_at=0)

    def check_order(self, name: str, desired: Desired) -> None:
        assert name not in self.containers, f"two containers called {name!r}"
        assert name not in self.ended_well, f"init container {name} runs again"
        inits, sidecars = ({one.name for one in part} for part in (desired.template.init, desired.template.sidecars))
        if name not in inits:
            assert inits <= self.ended_well, f"{name!r} is started before {inits - self.ended_well} have ended well"
        if not name and not self.observed.record.started_at:
            assert sidecars <= self.containers, "the main container is started before its sidecars"

    def noted(self, step: actions.NoteExit, record: ContainerRecord, desired: Desired) -> ContainerRecord:
        policy = desired.template.restart
        if any(one.name == step.container for one in desired.template.sidecars):
            return restart.after_sidecar_exit(record, step.exit, now_ms=self.now, jitter=0.5)
        if not step.container:
            return restart.after_exit(record, step.exit, policy, now_ms=self.now, jitter=0.5)
        if step.exit.code == 0:
            self.ended_well.add(step.container)
        return restart.after_init_exit(record, step.exit, policy, now_ms=self.now, jitter=0.5)

    def wait(self, step: actions.Wait, seen: Observed) -> Observed:
        running = [name for name, sight in seen.each if sight.life is Life.RUNNING]
        if running and (luck := self.chance.random()) < 0.4:
            name = self.chance.choice(running)
            sight = seen.of(name)
            if luck < 0.1 and name not in {"fetch", "migrate"}:
                sick = dataclasses.replace(sight.record, unhealthy="startup probe failed")
                return seen.with_one(name, dataclasses.replace(sight, record=sick))
            ended = Exit(code=self.chance.choice([0, 1, 137]), finished_at=self.now)
            return seen.with_one(name, dataclasses.replace(sight, life=Life.STOPPED, exit=ended))
        self.now = max(self.now + 1, step.until)
        return seen

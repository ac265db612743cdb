"""The worker on a fake machine in virtual time: what it promises over crashes, failures and its own death."""

import itertools

import pytest

from agent.core.assignments import Gap
from agent.errors import StartFailed, Temporary
from protos import states
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb
from tests.support.aio import bounded
from tests.support.fake_agent import (
    FakeMachine,
    loop_ms,
)
from tests.support.fake_leader import task, template
from tests.support.working import REMOVE, SHUTDOWN, alive, machine_with_image


@bounded(3600, virtual_time=True)
async def test_a_task_runs() -> None:
    """From the assignment to a running container, and every status on the way up."""
    machine = machine_with_image()
    async with alive(machine) as agent:
        agent.complete(task("web-1-a"))
        status = await agent.reach("web-1-a", states.RUNNING)
        assert (status.ready, status.address, status.restarts) == (True, "10.112.1.2", 0)
        request = machine.containers["web-1-a"].request
        assert request.config["linux"]["namespaces"][1] == {"type": "network", "path": "/run/netns/web-1-a"}
        assert "ORCH_ADDRESS=10.112.1.2" in request.config["process"]["env"]


@bounded(3600, virtual_time=True)
async def test_an_address_that_was_freed_is_not_given_by_the_next_agent() -> None:
    """Somebody may still send to whoever had it."""
    machine = machine_with_image()
    async with alive(machine) as agent:
        agent.complete(task("web-1-a"))
        assert (await agent.reach("web-1-a", states.RUNNING)).address == "10.112.1.2"
        agent.complete()
        await agent.until(lambda: not machine.records)
    async with alive(machine) as agent:
        agent.complete(task("web-1-b"))
        assert (await agent.reach("web-1-b", states.RUNNING)).address == "10.112.1.3"


@bounded(3600, virtual_time=True)
async def test_the_assignment_is_on_disk_before_anything_is_started() -> None:
    """Else an agent that dies in between would remove its own container as a stray."""
    machine = machine_with_image()
    machine.delay_s = 0.05
    async with alive(machine) as agent:
        agent.complete(task("web-1-a"))
        await agent.until(lambda: bool(machine.containers))
        assert [saved.meta.id for saved in machine.assignment.tasks] == ["web-1-a"]


@bounded(3600, virtual_time=True)
async def test_restarts_wait_longer_and_longer_then_the_task_fails() -> None:
    """At once, 1 s, 2 s, 4 s, 8 s; the sixth crash is the end, with everything given back."""
    machine = machine_with_image()
    async with alive(machine) as agent:
        agent.complete(task("web-1-a"))
        began = []
        for _ in range(6):
            await agent.until(lambda: "web-1-a" in machine.running())
            began.append(loop_ms())
            machine.crash("web-1-a", 3)
            await agent.until(lambda: "web-1-a" not in machine.running())
        status = await agent.reach("web-1-a", states.FAILED)
        gaps = [(b - a) / 1000 for a, b in itertools.pairwise(began)]
        assert [
            low <= gap <= high
            for gap, (low, high) in zip(gaps, [(0, 0.1), (0.8, 1.1), (1.6, 2.1), (3.2, 4.1), (6.4, 8.1)], strict=True)
        ] == [True] * 5
        assert (status.exit_code, status.restarts, status.address, status.reason) == (3, 5, "", "ExitCode")
        assert machine.attached == {}
        assert machine.containers == {}


@bounded(3600, virtual_time=True)
async def test_between_restarts_the_task_says_why_it_waits() -> None:
    """RUNNING, not ready, with the exit code and what comes next."""
    machine = machine_with_image()
    async with alive(machine) as agent:
        agent.complete(task("web-1-a"))
        for _ in range(2):
            await agent.until(lambda: "web-1-a" in machine.running())
            machine.crash("web-1-a", 137, memory_limit=64 << 20)
            await agent.until(lambda: "web-1-a" not in machine.running())
        await agent.until(lambda: agent.statuses["web-1-a"].restarts == 1 and not agent.statuses["web-1-a"].ready)
        status = agent.statuses["web-1-a"]
        assert (status.state, status.reason, status.oom_killed) == (states.RUNNING, "Restarting", True)
        assert status.message == "killed: out of memory, its limit is 64Mi; restart 2 is next"


@bounded(3600, virtual_time=True)
async def test_a_program_that_does_not_start_counts_as_an_exit() -> None:
    """With the exit code that a shell would give."""
    machine = machine_with_image()
    machine.start_failure = StartFailed("program 'x' is not there", exit_code=127)
    made = template("x")
    made.restart.attempts = 2
    async with alive(machine) as agent:
        agent.complete(task("web-1-a"), made=made)
        status = await agent.reach("web-1-a", states.FAILED)
        assert (status.exit_code, status.restarts, machine.starts["web-1-a"]) == (127, 2, 3)
        assert "program 'x' is not there" in status.message


@pytest.mark.parametrize(
    ("policy", "digest"),
    [
        (pb.IMAGE_PULL_POLICY_MISSING, "sha256:settled"),
        (pb.IMAGE_PULL_POLICY_ALWAYS, ""),
        (pb.IMAGE_PULL_POLICY_NEVER, ""),
    ],
    ids=["missing", "always", "never"],
)
def test_a_first_start_has_what_was_settled_or_what_the_policy_says(
    policy: pb.ImagePullPolicy.ValueType, digest: str
) -> None:
    """What is only to be found on the node has the digest that it has there, whatever another container's has."""

    @bounded(3600, virtual_time=True)
    async def scenario() -> None:
        machine = machine_with_image()
        made = template("/web")
        made.container.image_pull_policy = policy
        async with alive(machine) as agent:
            agent.complete(task("web-1-a"), made=made, settled={made.container.image: "sha256:settled"})
            await agent.reach("web-1-a", states.RUNNING)
        assert machine.asked_images == [(made.container.image, digest)]

    scenario()


@bounded(3600, virtual_time=True)
async def test_a_missing_image_rejects() -> None:
    """Before anything was started, so another node may have better luck."""
    async with alive(FakeMachine()) as agent:
        agent.complete(task("web-1-a"))
        status = await agent.reach("web-1-a", states.REJECTED)
        assert status.reason == "ImageMissing"


@bounded(3600, virtual_time=True)
async def test_a_network_that_is_not_ready_is_waited_for() -> None:
    """The status says so meanwhile, and the task goes on as soon as the network is there."""
    machine = machine_with_image()
    machine.network_failure = Temporary("nft is not installed")
    async with alive(machine) as agent:
        agent.complete(task("web-1-a"))
        await agent.until(lambda: "web-1-a" in agent.statuses and agent.statuses["web-1-a"].reason == "NetworkNotReady")
        assert "nft is not installed" in agent.statuses["web-1-a"].message
        machine.network_failure = None
        await agent.reach("web-1-a", states.RUNNING, within_s=12)


@bounded(3600, virtual_time=True)
async def test_stop_then_kill() -> None:
    """The stop signal, the grace period, SIGKILL; the exit code is kept."""
    machine = machine_with_image()
    machine.ignores_stop = True
    async with alive(machine) as agent:
        agent.complete(task("web-1-a"))
        await agent.reach("web-1-a", states.RUNNING)
        asked = loop_ms()
        agent.complete(task("web-1-a", desired=SHUTDOWN))
        status = await agent.reach("web-1-a", states.SHUTDOWN)
        assert 10_000 <= status.at - asked < 10_200
        assert status.exit_code == 137


@bounded(3600, virtual_time=True)
async def test_a_stopped_task_stays_on_record_until_it_is_removed() -> None:
    """SHUTDOWN keeps the record, REMOVE ends it."""
    machine = machine_with_image()
    async with alive(machine) as agent:
        agent.complete(task("web-1-a"))
        await agent.reach("web-1-a", states.RUNNING)
        agent.complete(task("web-1-a", desired=SHUTDOWN))
        await agent.reach("web-1-a", states.SHUTDOWN)
        assert "web-1-a" in machine.records
        agent.complete(task("web-1-a", desired=REMOVE))
        await agent.until(lambda: "web-1-a" not in machine.records)


@bounded(3600, virtual_time=True)
async def test_a_task_that_is_to_be_held_is_held() -> None:
    """READY until it is wanted to run: a replacement is prepared before the old task is stopped."""
    machine = machine_with_image()
    async with alive(machine) as agent:
        agent.complete(task("web-1-a", desired=pb.DESIRED_STATE_READY))
        await agent.reach("web-1-a", states.READY)
        assert machine.containers == {}
        agent.complete(task("web-1-a"))
        await agent.reach("web-1-a", states.RUNNING)


@bounded(3600, virtual_time=True)
async def test_adoption_after_the_agent_died() -> None:
    """The same container and address; what died meanwhile is restarted and counted; what nobody wants is removed."""
    machine = machine_with_image()
    names = ["web-1-a", "web-2-b", "web-3-c"]
    async with alive(machine) as agent:
        agent.complete(*(task(name) for name in names))
        for name in names:
            await agent.reach(name, states.RUNNING)
        addresses = {name: agent.statuses[name].address for name in names}
        roots = {name: agent.statuses[name].root_id for name in names}
        assert len(set(roots.values())) == len(names)
    pids = {name: container.pid for name, container in machine.containers.items()}
    machine.crash("web-2-b", 9)
    del machine.assignment.tasks[2:]
    async with alive(machine) as agent:
        await agent.until(lambda: len(agent.statuses) == 2 and all(s.ready for s in agent.statuses.values()))
        await agent.until(lambda: "web-3-c" not in machine.containers and "web-3-c" not in machine.records)
        assert machine.containers["web-1-a"].pid == pids["web-1-a"]
        assert machine.starts == {"web-1-a": 1, "web-2-b": 2, "web-3-c": 1}
        assert {name: agent.statuses[name].address for name in names[:2]} == {n: addresses[n] for n in names[:2]}
        assert agent.statuses["web-2-b"].exit_code == 9
        agent.complete(task("web-1-a"), task("web-2-b"), task("web-4-d"))
        fresh = await agent.reach("web-4-d", states.RUNNING)
        assert fresh.address not in addresses.values()
        assert fresh.root_id not in roots.values()
        assert [agent.statuses[name].root_id for name in names[:2]] == [roots[name] for name in names[:2]]


@bounded(3600, virtual_time=True)
async def test_the_end_of_a_task_survives_the_agent() -> None:
    """What has ended is not started again by the next agent, and is told again."""
    machine = machine_with_image()
    made = template("/web")
    made.restart.condition = pb.RESTART_CONDITION_NEVER
    async with alive(machine) as agent:
        agent.complete(task("job-1-a"), made=made)
        await agent.until(lambda: "job-1-a" in machine.running())
        machine.crash("job-1-a", 0)
        await agent.reach("job-1-a", states.COMPLETE)
    async with alive(machine) as agent:
        await agent.reach("job-1-a", states.COMPLETE)
    assert machine.starts == {"job-1-a": 1}


@bounded(3600, virtual_time=True)
async def test_a_task_that_the_leader_gave_up_stops_in_silence() -> None:
    """ORPHANED is the leader's word: the container goes, and nothing is reported."""
    machine = machine_with_image()
    async with alive(machine) as agent:
        agent.complete(task("web-1-a"))
        await agent.reach("web-1-a", states.RUNNING)
        lost = task("web-1-a")
        lost.status.state = states.ORPHANED
        told = len(agent.story["web-1-a"])
        agent.complete(lost)
        await agent.until(lambda: machine.containers == {} and machine.attached == {})
        assert len(agent.story["web-1-a"]) == told


@bounded(3600, virtual_time=True)
async def test_unwanted_before_its_image_has_come() -> None:
    """Nobody waits for a download that is not needed any more."""
    machine = machine_with_image()
    machine.delay_s = 300
    async with alive(machine) as agent:
        agent.complete(task("web-1-a"))
        await agent.until(lambda: bool(agent.statuses) and agent.statuses["web-1-a"].state == states.PREPARING)
        agent.complete(task("web-1-a", desired=SHUTDOWN))
        await agent.reach("web-1-a", states.SHUTDOWN, within_s=1)


@bounded(3600, virtual_time=True)
async def test_a_task_that_is_taken_away_and_given_back() -> None:
    """Whatever the leader says last holds, even while the task is being cleaned up."""
    machine = machine_with_image()
    async with alive(machine) as agent:
        agent.complete(task("web-1-a"))
        await agent.reach("web-1-a", states.RUNNING)
        machine.delay_s = 0.2
        agent.complete()
        await agent.until(lambda: "web-1-a" not in machine.running())
        agent.statuses.clear()
        agent.complete(task("web-1-a"))
        await agent.until(lambda: "web-1-a" in agent.statuses)


@bounded(3600, virtual_time=True)
async def test_gaps_are_told() -> None:
    """An increment that does not fit is not applied."""
    async with alive(machine_with_image()) as agent:
        agent.complete()
        increment = dpb.Assignment(type=dpb.Assignment.TYPE_INCREMENTAL, applies_to=7, results_in=8)
        assert agent.worker.assign(increment) == Gap(why="the assignment builds on 7, this agent is at 1")
        unknown = dpb.Assignment(
            type=dpb.Assignment.TYPE_INCREMENTAL, applies_to=1, results_in=2, tasks=[task("web-1-a", revision="r9")]
        )
        gap = agent.worker.assign(unknown)
        assert isinstance(gap, Gap)
        assert "revision r9" in gap.why


@pytest.mark.parametrize("count", [200])
@bounded(3600, virtual_time=True)
async def test_many_tasks(count: int) -> None:
    """Each gets an address of its own, and starts are bounded but not one after another."""
    machine = machine_with_image()
    machine.delay_s = 0.01
    async with alive(machine) as agent:
        began = loop_ms()
        agent.complete(*(task(f"web-{number}-a") for number in range(count)))
        await agent.until(lambda: sum(status.ready for status in agent.statuses.values()) == count)
        assert len({status.address for status in agent.statuses.values()}) == count
        assert loop_ms() - began < count * 20 / 4


@bounded(3600, virtual_time=True)
async def test_a_container_that_has_ended_when_its_start_returns() -> None:
    """It was started all the same: its exit counts, and the restart policy decides."""
    machine = machine_with_image()
    machine.ends_at_once = 4
    made = template("/web")
    made.restart.attempts = 1
    async with alive(machine) as agent:
        agent.complete(task("web-1-a"), made=made)
        status = await agent.reach("web-1-a", states.FAILED)
        assert (status.exit_code, status.restarts) == (4, 1)

"""The worker and tasks of several containers, in virtual time: their order, their hooks, and an agent that dies."""

import asyncio

import pytest

from protos import states
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb
from tests.support.aio import bounded
from tests.support.fake_agent import ONCE, FakeMachine, loop_ms
from tests.support.fake_leader import task, template
from tests.support.working import SHUTDOWN, Agent, alive, machine_with_image
from tests.unit.agent.test_readiness import probe, ready

WEB = "web-1-a"
FETCH, MIGRATE, PROXY, LOGGER = (f"{WEB}.{name}" for name in ("fetch", "migrate", "proxy", "logger"))


def crowd(**fields: object) -> pb.TaskTemplate:
    """Two init containers and two sidecars around the main one."""
    made = template("/web", **fields)  # type: ignore[arg-type]
    made.restart.CopyFrom(pb.RestartPolicy(condition=pb.RESTART_CONDITION_ANY, attempts=5, window=300_000))
    made.stop_grace_period = 10_000
    made.init.extend(pb.Container(name=name, image="hello:1") for name in ("fetch", "migrate"))
    made.sidecars.extend(pb.Container(name=name, image="hello:1") for name in ("proxy", "logger"))
    return made


async def end(agent: Agent, container: str, code: int = 0) -> None:
    """Once it runs, it ends."""
    await agent.until(lambda: container in agent.machine.running())
    agent.machine.crash(container, code)


async def up(agent: Agent, made: pb.TaskTemplate) -> pb.TaskStatus:
    """Everything around the main container has done its part."""
    agent.complete(task(WEB), made=made)
    await end(agent, FETCH)
    await end(agent, MIGRATE)
    return await ready(agent)


@bounded(3600, virtual_time=True)
async def test_containers_start_in_their_order() -> None:
    """One init container after the other, then the sidecars, then the main one; all in one network."""
    machine = machine_with_image()
    async with alive(machine) as agent:
        agent.complete(task(WEB), made=crowd())
        await agent.until(lambda: FETCH in machine.running())
        assert list(machine.running()) == [FETCH]
        await agent.until(lambda: agent.statuses[WEB].message == "init container fetch (1 of 2) runs")
        machine.crash(FETCH, 0)
        await agent.until(lambda: MIGRATE in machine.running())
        assert list(machine.running()) == [MIGRATE]
        machine.crash(MIGRATE, 0)
        status = await ready(agent)
        assert list(machine.running()) == [PROXY, LOGGER, WEB]
        assert (status.state, status.message) == (states.RUNNING, "")
        configs = [one.request.config for one in machine.running().values()]
        assert {config["linux"]["namespaces"][1]["path"] for config in configs} == {f"/run/netns/{WEB}"}
        assert len({config["linux"]["cgroupsPath"] for config in configs}) == 3


@bounded(3600, virtual_time=True)
async def test_an_init_container_that_fails_is_repeated_until_it_ends_well() -> None:
    """And the status says which, and how it ended."""
    machine = machine_with_image()
    async with alive(machine) as agent:
        agent.complete(task(WEB), made=crowd())
        await end(agent, FETCH)
        await end(agent, MIGRATE, 3)
        await end(agent, MIGRATE, 3)
        said = "init container migrate (2 of 2): ended with exit code 3; restart 2 is next"
        await agent.until(lambda: agent.statuses[WEB].message == said)
        assert agent.statuses[WEB].state == states.STARTING
        await end(agent, MIGRATE)
        await ready(agent)
        assert machine.starts == {FETCH: 1, MIGRATE: 3, PROXY: 1, LOGGER: 1, WEB: 1}


@pytest.mark.parametrize(("condition", "starts"), [(pb.RESTART_CONDITION_NEVER, 1), (pb.RESTART_CONDITION_ANY, 6)])
@bounded(3600, virtual_time=True)
async def test_an_init_container_that_gives_up_fails_the_task(
    condition: "pb.RestartCondition.ValueType", starts: int
) -> None:
    """As often as the restart policy lets it; nothing is left, and the main one was never there."""
    machine = machine_with_image()
    machine.ends_at_once = 4
    made = crowd()
    made.restart.condition = condition
    async with alive(machine) as agent:
        agent.complete(task(WEB), made=made)
        status = await agent.reach(WEB, states.FAILED)
        assert status.message.startswith("init container fetch: ended with exit code 4")
        assert machine.starts == {FETCH: starts}
        assert not machine.containers
        assert not machine.attached


@bounded(3600, virtual_time=True)
async def test_an_agent_that_dies_goes_on_with_the_init_containers() -> None:
    """What has ended well is not run again, what runs is adopted, and what ended meanwhile is noted."""
    machine = machine_with_image()
    async with alive(machine) as agent:
        agent.complete(task(WEB), made=crowd())
        await end(agent, FETCH)
        await agent.until(lambda: MIGRATE in machine.running())
    machine.crash(MIGRATE, 0)
    async with alive(machine) as agent:
        await agent.until(lambda: PROXY in machine.running())
    async with alive(machine) as agent:
        await agent.until(lambda: WEB in machine.running())
    async with alive(machine) as agent:
        await ready(agent)
    assert machine.starts == {FETCH: 1, MIGRATE: 1, PROXY: 1, LOGGER: 1, WEB: 1}


@pytest.mark.parametrize("deaths", [1, 2, 5])
@bounded(3600, virtual_time=True)
async def test_an_agent_that_dies_at_any_moment_starts_nothing_twice(deaths: int) -> None:
    """Whatever it was in the middle of, every so many steps again: each container is started once, and in its order."""
    for moment in range(60):
        machine, made = machine_with_image(), crowd()
        machine.delay_s = 0.01
        for one in made.init:
            one.command.append(ONCE)
        for _ in range(deaths):
            async with alive(machine) as agent:
                agent.complete(task(WEB), made=made)
                await asyncio.sleep(0.013 * moment / deaths)
        async with alive(machine) as agent:
            agent.complete(task(WEB), made=made)
            await ready(agent)
        assert machine.starts == {FETCH: 1, MIGRATE: 1, PROXY: 1, LOGGER: 1, WEB: 1}, f"killed at {moment}"
        assert [*machine.starts] == [FETCH, MIGRATE, PROXY, LOGGER, WEB]


@bounded(3600, virtual_time=True)
async def test_a_sidecar_is_started_again_alone() -> None:
    """The task is not ready until it is back, and the others have noticed nothing."""
    machine = machine_with_image()
    async with alive(machine) as agent:
        await up(agent, crowd())
        for _ in range(8):
            await end(agent, PROXY, 1)
        said = "sidecar proxy: ended with exit code 1; restart 8 is next"
        await agent.until(lambda: agent.statuses[WEB].message == said)
        assert not agent.statuses[WEB].ready
        await ready(agent)
        assert machine.starts == {FETCH: 1, MIGRATE: 1, PROXY: 9, LOGGER: 1, WEB: 1}
        assert agent.statuses[WEB].restarts == 0


@bounded(3600, virtual_time=True)
async def test_a_sidecar_that_is_not_ready_holds_up_what_comes_after_it() -> None:
    """Its own probe decides."""
    machine = machine_with_image()
    machine.unwell.add((PROXY, "9000"))
    made = crowd()
    made.sidecars[0].probes.readiness.CopyFrom(probe("9000"))
    async with alive(machine) as agent:
        agent.complete(task(WEB), made=made)
        await end(agent, FETCH)
        await end(agent, MIGRATE)
        said = "sidecar proxy: readiness probe failed: HTTP GET / on port 9000: status 503"
        await agent.until(lambda: agent.statuses[WEB].message == said)
        assert list(machine.running()) == [PROXY]
        machine.unwell.clear()
        await ready(agent)


@bounded(3600, virtual_time=True)
async def test_the_main_container_restarts_without_the_others() -> None:
    """Init containers have done their work, and sidecars go on."""
    machine = machine_with_image()
    async with alive(machine) as agent:
        await up(agent, crowd())
        machine.crash(WEB, 1)
        await agent.until(lambda: agent.statuses[WEB].restarts == 1)
        await ready(agent)
        assert machine.starts == {FETCH: 1, MIGRATE: 1, PROXY: 1, LOGGER: 1, WEB: 2}


@bounded(3600, virtual_time=True)
async def test_containers_stop_in_reverse_order() -> None:
    """When it is told to, and when the main one has come to its end."""
    for ending in ("stop", "end"):
        machine, made = machine_with_image(), crowd()
        if ending == "end":
            made.restart.condition = pb.RESTART_CONDITION_ON_FAILURE
        async with alive(machine) as agent:
            await up(agent, made)
            if ending == "stop":
                agent.complete(task(WEB, desired=SHUTDOWN), made=made)
            else:
                machine.crash(WEB, 0)
            await agent.reach(WEB, states.SHUTDOWN if ending == "stop" else states.COMPLETE)
            told = [name for name, _ in machine.stops]
            assert told == ([WEB] if ending == "stop" else []) + [LOGGER, PROXY]
            assert not machine.containers


def hooked(**hooks: pb.Hook) -> pb.TaskTemplate:
    made = template("/web")
    made.stop_grace_period = 10_000
    made.restart.CopyFrom(pb.RestartPolicy(condition=pb.RESTART_CONDITION_ANY, attempts=5, window=300_000))
    made.container.lifecycle.CopyFrom(pb.Lifecycle(**hooks))
    return made


def asks(port: str) -> pb.Hook:
    return pb.Hook(http=pb.HttpProbe(port=port), timeout=1_000)


@bounded(3600, virtual_time=True)
async def test_a_container_is_ready_after_its_hook() -> None:
    """And not before, though it runs."""
    machine = machine_with_image()
    async with alive(machine) as agent:
        agent.complete(task(WEB), made=hooked(post_start=pb.Hook(sleep=3_000)))
        status = await agent.reach(WEB, states.RUNNING)
        await agent.until(lambda: agent.statuses[WEB].message == "its postStart hook runs")
        assert not agent.statuses[WEB].ready
        status = await ready(agent)
        assert 3_000 <= loop_ms() - status.started_at < 3_200


@bounded(3600, virtual_time=True)
async def test_a_container_whose_hook_fails_is_restarted() -> None:
    """As one whose probe fails, and with the hook's own words."""
    machine = machine_with_image()
    machine.unwell.add((WEB, "8080"))
    async with alive(machine) as agent:
        agent.complete(task(WEB), made=hooked(post_start=asks("8080")))
        said = "postStart hook failed: status 503; restart 2 is next"
        await agent.until(lambda: agent.statuses.get(WEB) is not None and agent.statuses[WEB].message == said)
        assert agent.statuses[WEB].reason == "HookFailed"
        machine.unwell.clear()
        await ready(agent)


@bounded(3600, virtual_time=True)
async def test_a_hook_comes_before_the_stop_signal() -> None:
    """However it ends; one that takes too long is part of the time that there is."""
    for hook, wait_s in ((pb.Hook(sleep=2_000), 2), (asks("8080"), 0), (pb.Hook(sleep=60_000), 10)):
        machine = machine_with_image()
        machine.unwell.add((WEB, "8080"))
        async with alive(machine) as agent:
            made = hooked(pre_stop=hook)
            agent.complete(task(WEB), made=made)
            await ready(agent)
            told = asyncio.get_running_loop().time()
            agent.complete(task(WEB, desired=SHUTDOWN), made=made)
            await agent.reach(WEB, states.SHUTDOWN)
            ((_, at),) = machine.stops
            assert wait_s <= round(at - told, 2) < wait_s + 0.2


@bounded(3600, virtual_time=True)
async def test_a_hook_that_an_agent_died_in_is_run_again() -> None:
    """Nobody knows how far it came; and one that has ended well is not."""
    machine, made = machine_with_image(), hooked(post_start=pb.Hook(sleep=5_000))
    async with alive(machine) as agent:
        agent.complete(task(WEB), made=made)
        await agent.reach(WEB, states.RUNNING)
        await asyncio.sleep(4)
    async with alive(machine) as agent:
        await asyncio.sleep(4)
        assert not agent.statuses[WEB].ready
        await ready(agent)
    async with alive(machine) as agent:
        assert (await ready(agent, within_s=0.1)).restarts == 0


@bounded(3600, virtual_time=True)
async def test_a_task_is_held_until_it_may_start() -> None:
    """Prepared, with the reason; then it starts at once."""
    machine = machine_with_image()
    async with alive(machine) as agent:
        waiting = task(WEB, desired=pb.DESIRED_STATE_READY)
        waiting.waits_for = "database to be ready"
        agent.complete(waiting, made=crowd())
        status = await agent.reach(WEB, states.READY)
        assert (status.message, status.reason) == ("waits for database to be ready", "Held")
        await asyncio.sleep(60)
        assert not machine.starts
        agent.complete(task(WEB), made=crowd())
        await agent.until(lambda: FETCH in machine.running(), within_s=0.1)


@bounded(3600, virtual_time=True)
async def test_the_labels_of_the_node_reach_its_containers() -> None:
    """Those that it has when the container is started, also without a control plane."""
    machine: FakeMachine = machine_with_image()
    made = template("/web")
    made.container.env["ZONE"] = "${node.labels.zone} ${task.slot} ${node.name}"
    async with alive(machine) as agent:
        message = dpb.Assignment(
            type=dpb.Assignment.TYPE_COMPLETE,
            results_in=1,
            network=dpb.NodeNetwork(cluster_range="10.112.0.0/16", subnet="10.112.1.0/24"),
            tasks=[task(WEB)],
            revisions=[pb.Revision(meta=pb.Meta(id="r1"), template=made)],
            node=dpb.NodeFacts(labels={"zone": "b"}),
        )
        assert agent.worker.assign(message) is None
        await ready(agent)
        assert "ZONE=b 1 n1" in machine.containers[WEB].request.config["process"]["env"]
    machine.crash(WEB, 1)
    async with alive(machine) as agent:
        await agent.until(lambda: WEB in machine.running())
        assert "ZONE=b 1 n1" in machine.containers[WEB].request.config["process"]["env"]

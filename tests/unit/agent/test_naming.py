"""What the worker tells whoever answers names, and what a session's messages make of the services."""

import asyncio
import random
from collections.abc import Mapping

import pytest

from agent.core import assignments
from agent.core.assignments import Assignments
from agent.core.users import IdPool
from agent.errors import Temporary
from agent.ports import ContainerState
from agent.worker import Worker
from protos import states
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb
from tests.support import fake_agent
from tests.support.aio import bounded, until
from tests.support.fake_agent import FakeMachine, loop_ms
from tests.support.fake_leader import task, template
from tests.support.fake_names import FakeNames
from tests.support.fake_prober import FakeProber

NETWORK = dpb.NodeNetwork(cluster_range="10.112.0.0/16", subnet="10.112.1.0/24")
virtual = bounded(3600, virtual_time=True)


def complete(number: int = 1, *names: str) -> dpb.Assignment:
    return dpb.Assignment(
        type=dpb.Assignment.TYPE_COMPLETE,
        results_in=number,
        network=NETWORK,
        tasks=[task("web-1-a")],
        revisions=[pb.Revision(meta=pb.Meta(id="r1"), template=template("/web"))],
        services=[dpb.NetworkService(id=name, namespace="default", name=name) for name in names],
    )


def increment(after: int, **fields: object) -> dpb.Assignment:
    made = dpb.Assignment(type=dpb.Assignment.TYPE_INCREMENTAL, applies_to=after - 1, results_in=after)
    made.MergeFrom(dpb.Assignment(**fields))  # type: ignore[arg-type]
    return made


def make_worker(machine: FakeMachine, names: FakeNames, runtime: fake_agent.FakeRuntime | None = None) -> Worker:
    return Worker(
        runtime=runtime or fake_agent.FakeRuntime(machine),
        prober=FakeProber(machine),
        images=fake_agent.FakeImages(machine),
        network=fake_agent.FakeNetwork(machine),
        names=names,
        disk=fake_agent.FakeDisk(machine),
        devices=fake_agent.FakeDevices(),
        users=IdPool(fake_agent.IDS),
        node=fake_agent.NODE,
        now_ms=loop_ms,
        chance=random.Random(1),
    )


def apply(*messages: dpb.Assignment) -> Assignments:
    found = Assignments()
    for message in messages:
        after = assignments.apply(found, message)
        assert isinstance(after, Assignments), after
        found = after
    return found


def test_services_are_replaced_added_and_removed() -> None:
    """Whole by a COMPLETE message, one by one by the others; what has not changed stays the same object."""
    one = apply(complete(1, "a", "b"))
    assert sorted(one.services) == ["a", "b"]
    changed = dpb.NetworkService(id="b", namespace="default", name="b", address="10.96.0.1")
    two = assignments.apply(one, increment(2, services=[changed], removed_services=["a", "never"]))
    assert isinstance(two, Assignments)
    assert dict(two.services) == {"b": changed}
    assert two.touched == {"a", "b"}
    three = assignments.apply(two, increment(3))
    assert isinstance(three, Assignments)
    assert three.services is two.services
    assert three.touched == set()
    assert assignments.from_saved(assignments.to_saved(three)).services == {"b": changed}
    anew = assignments.apply(assignments.of_new_session(three), complete(9, "c"))
    assert isinstance(anew, Assignments)
    assert sorted(anew.services) == ["c"]
    assert anew.touched == {"b", "c"}
    same = assignments.apply(assignments.of_new_session(anew), complete(1, "c", "d"))
    assert isinstance(same, Assignments)
    assert same.services["c"] is anew.services["c"]
    assert same.touched == {"d"}, "what is told again, and is the same, has not changed"


@virtual
async def test_names_know_what_is_assigned_and_whose_an_address_is() -> None:
    """Also in the next life of the agent, before a leader has said anything."""
    machine = FakeMachine()
    machine.add_image()
    for life in (1, 2):
        names = FakeNames()
        worker = make_worker(machine, names)
        running = asyncio.ensure_future(worker.run())
        await worker.restored.wait()
        if life == 1:
            worker.begin_session()
            assert worker.assign(complete(1, "a")) is None
        await until(lambda: bool(machine.running()), what="the task runs")
        assert names.network == NETWORK
        assert sorted(names.services) == ["a"]
        (attachment,) = machine.attached.values()
        assert worker.task_at(attachment.address) == worker.task("web-1-a")
        assert worker.task_at("10.112.1.99") is None
        files = machine.containers["web-1-a"].request.files
        assert "nameserver 10.112.1.1\nsearch default.orch orch example.com\n" in files["/etc/resolv.conf"]
        running.cancel()
        await asyncio.wait({running})


@virtual
async def test_an_address_that_was_given_back_is_nobody_s() -> None:
    """What was looked up before does not outlive its task."""
    machine = FakeMachine()
    machine.add_image()
    worker = make_worker(machine, FakeNames())
    running = asyncio.ensure_future(worker.run())
    await worker.restored.wait()
    worker.begin_session()
    worker.assign(complete())
    await until(lambda: bool(machine.running()), what="the task runs")
    (attachment,) = machine.attached.values()
    assert worker.task_at(attachment.address) == worker.task("web-1-a")
    worker.assign(increment(2, tasks=[task("web-1-a", desired=pb.DESIRED_STATE_REMOVE)]))
    await until(lambda: not machine.attached, what="its network is gone")
    assert worker.task_at(attachment.address) is None
    running.cancel()
    await asyncio.wait({running})


@virtual
async def test_a_server_that_cannot_listen_holds_tasks_back() -> None:
    """As every trouble of the network does: with its reason, and only as long as it lasts."""

    class Deaf(FakeNames):
        deaf = True

        async def serve(self) -> None:
            if self.deaf:
                raise Temporary("names cannot be answered", reason="NetworkFailed")

    machine, names = FakeMachine(), Deaf()
    machine.add_image()
    worker = make_worker(machine, names)
    running = asyncio.ensure_future(worker.run())
    await worker.restored.wait()
    worker.begin_session()
    worker.assign(complete())

    def waits() -> bool:
        failure = worker.observed["web-1-a"].failure
        return failure is not None and "names cannot be answered" in failure.message

    await until(waits, what="the task says what it waits for")
    assert worker.observed["web-1-a"].record.state < states.RUNNING
    names.deaf = False
    await until(lambda: bool(machine.running()), what="the task runs", timeout_s=60)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@virtual
async def test_names_are_answered_before_containers_are_looked_at() -> None:
    """From what is on the disk, and for the tasks that are in its records: whoever asks is known."""
    machine = FakeMachine()
    machine.add_image()
    first = make_worker(machine, FakeNames())
    running = asyncio.ensure_future(first.run())
    await first.restored.wait()
    first.begin_session()
    assert first.assign(complete(1, "web")) is None
    await until(lambda: bool(machine.running()), what="the task runs")
    (attachment,) = machine.attached.values()
    running.cancel()
    await asyncio.wait({running})

    names = FakeNames()
    second = make_worker(machine, names, runtime=Slow(machine))
    running = asyncio.ensure_future(second.run())
    await until(lambda: names.resumed, what="names are answered")
    await asyncio.sleep(10)
    assert not second.restored.is_set()
    found = second.task_at(attachment.address)
    assert found is not None
    assert found.meta.id == "web-1-a"
    assert second.task_at("10.112.1.99") is None
    assert list(names.services) == ["web"]
    running.cancel()
    await asyncio.wait({running})


class Slow(fake_agent.FakeRuntime):
    """It takes an hour to tell which containers there are."""

    async def containers(self) -> Mapping[str, ContainerState]:
        await asyncio.sleep(3000)
        return {}


def test_only_tasks_of_which_something_else_is_wanted_are_looked_at_again() -> None:
    """Each message would have all tasks of a node looked at otherwise: forty messages while forty tasks start."""
    first = complete()
    first.tasks.append(task("web-2-b"))
    here = apply(first)

    def changed(**fields: object) -> set[str]:
        after = assignments.apply(here, increment(2, **fields))
        assert isinstance(after, Assignments), after
        return {one.meta.id for one in assignments.changed_tasks(here, after)}

    assert changed(services=[dpb.NetworkService(id="a")]) == set()
    assert changed(withdrawn_tasks=["web-2-b"]) == {"web-2-b"}
    assert changed(tasks=[task("web-3-c")]) == {"web-3-c"}
    assert changed(tasks=[task("web-1-a")]) == {"web-1-a"}
    other = pb.Revision(meta=pb.Meta(id="r1"), template=template("/other"))
    assert changed(revisions=[other]) == {"web-1-a", "web-2-b"}
    whole = assignments.apply(here, complete(5))
    assert isinstance(whole, Assignments), whole
    assert {one.meta.id for one in assignments.changed_tasks(here, whole)} == {"web-1-a"}

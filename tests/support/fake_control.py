"""A control plane in memory for tests of its clients: the `Control` service over plain objects, without controllers.

What is applied is there at once and, while `settles` is true, as asked at once. A test that wants something in between
sets `settles` to false and puts the objects itself. Logs and exec answer what a test has put into `log_batches` and
`exec_answer`.
"""

# ruff: noqa: N802 - gRPC names its calls like this

import contextlib
import itertools
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, NoReturn

import grpc

from images import digest as digests
from images import manifest
from protos import headers, kinds
from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import control_pb2_grpc
from protos.orch.v1 import objects_pb2 as pb
from tests.support import selecting

WATCH_POLL_S = 0.2
NOW_MS = 1_700_000_000_000


class FakeControl(control_pb2_grpc.ControlServicer):
    def __init__(self) -> None:
        self.settles = True
        self.leader = ""
        """The address of another leader: logs and exec are then refused."""
        self.refuses: dict[str, tuple[grpc.StatusCode, control.Error]] = {}
        """By the call's name: what it answers instead."""
        self.log_batches: list[control.LogsResponse] = []
        self.findings: list[control.NetworkFinding] = []
        """What a check of the network finds."""
        self.silent: set[str] = set()
        """Names of calls that get no answer before `speak`."""
        self._speaks = threading.Event()
        self.looks: list[list[control.NodeUsage]] = []
        """What nodes use, look by look; after the last one they are refused."""
        self.exec_answer: Callable[[Iterator[control.ExecRequest]], Iterator[control.ExecResponse]] = _echo
        self.requests: list[Any] = []
        self.actors: dict[str, str] = {}
        """By the call's name: who made the last one."""
        self.imported = b""
        self.blobs: dict[str, bytes] = {}
        """What was pushed, by digest."""
        self.starts: list[control.ExecStart] = []
        """How each exec began."""
        self._objects: dict[str, kinds.StoredObject] = {}
        self._changes: list[control.WatchResponse] = []
        self._lock = threading.Condition()
        self._ids = 0

    # What a test does to the world.

    def put(self, value: kinds.StoredObject) -> None:
        """Stores an object as it is, and tells the watchers."""
        with self._lock:
            value.meta.version = len(self._changes) + 1
            self._objects[kinds.key(value)] = value
            self._tell(control.WatchResponse(changed=kinds.wrap(value)))

    def drop(self, value: kinds.StoredObject) -> None:
        """Removes an object, and tells the watchers."""
        with self._lock:
            del self._objects[kinds.key(value)]
            self._tell(control.WatchResponse(deleted=kinds.wrap(value)))

    def find(self, kind: str, namespace: str, name: str) -> kinds.StoredObject | None:
        """The object of that name or id."""
        with self._lock:
            found = (value for value in self._objects.values() if selecting.named(value, kind, namespace, name))
            return next(found, None)

    def speak(self) -> None:
        """Answer at last what was silent."""
        self.silent.clear()
        self._speaks.set()

    def wait_for_watchers(self, number: int = 1, timeout_s: float = 10) -> None:
        """Until so many watches were opened."""
        with self._lock:
            opened = self._lock.wait_for(lambda: self._opened(control.WatchRequest) >= number, timeout_s)
            assert opened, f"no {number} watches within {timeout_s} s"

    def asked(self, message: type) -> list[Any]:
        """The requests of that type that came in."""
        with self._lock:
            return [request for request in self.requests if isinstance(request, message)]

    # What clients ask.

    def Apply(self, request: control.ApplyRequest, context: Any) -> control.ApplyResponse:
        self._enter("Apply", request, context)
        results = [self._apply(kinds.unwrap(each), dry_run=request.dry_run) for each in request.objects]
        return control.ApplyResponse(results=results, revision=len(self._changes))

    def Get(self, request: control.GetRequest, context: Any) -> pb.Object:
        self._enter("Get", request, context)
        return kinds.wrap(self._existing(request.reference, context))

    def List(self, request: control.ListRequest, context: Any) -> control.ListResponse:
        self._enter("List", request, context)
        with self._lock:
            found = [kinds.wrap(value) for value in self._objects.values() if selecting.fits(value, request)]
        return control.ListResponse(objects=found, revision=len(self._changes))

    def Watch(self, request: control.WatchRequest, context: Any) -> Iterator[control.WatchResponse]:
        with self._lock:
            self._enter("Watch", request, context)
            seen = len(self._changes)
            present = list(self._objects.values())
            self._lock.notify_all()
        for value in present:
            if any(selecting.fits(value, selection) for selection in request.selections):
                yield control.WatchResponse(changed=kinds.wrap(value))
        yield control.WatchResponse(synced=seen)
        while context.is_active():
            with self._lock:
                self._lock.wait_for(lambda: len(self._changes) > seen, WATCH_POLL_S)  # noqa: B023 - called at once
                fresh, seen = self._changes[seen:], len(self._changes)
            for change in fresh:
                value = kinds.unwrap(change.changed if change.HasField("changed") else change.deleted)
                if any(selecting.fits(value, selection) for selection in request.selections):
                    yield change

    def Delete(self, request: control.DeleteRequest, context: Any) -> control.DeleteResponse:
        self._enter("Delete", request, context)
        value = self._existing(request.reference, context)
        value.meta.deleted_at = NOW_MS
        self.put(value)
        if self.settles:
            self.drop(value)
        return control.DeleteResponse(object=kinds.wrap(value))

    def Scale(self, request: control.ScaleRequest, context: Any) -> control.ScaleResponse:
        self._enter("Scale", request, context)
        service = self._existing(request.reference, context)
        assert isinstance(service, pb.Service), "only services are scaled"
        before = service.spec.replicas
        service.spec.replicas = request.replicas
        service.meta.generation += 1
        self._settle(service)
        self.put(service)
        return control.ScaleResponse(service=service, before=before)

    def UpdateMeta(self, request: control.UpdateMetaRequest, context: Any) -> control.UpdateMetaResponse:
        self._enter("UpdateMeta", request, context)
        value = self._existing(request.reference, context)
        value.meta.labels.update(request.set_labels)
        value.meta.annotations.update(request.set_annotations)
        for key in request.remove_labels:
            value.meta.labels.pop(key, None)
        for key in request.remove_annotations:
            value.meta.annotations.pop(key, None)
        self.put(value)
        return control.UpdateMetaResponse(object=kinds.wrap(value), changed=True)

    def Rollout(self, request: control.RolloutRequest, context: Any) -> control.RolloutResponse:
        """Notes the wish, and settles as it was told to."""
        self._enter("Rollout", request, context)
        service = self._existing(request.reference, context)
        assert isinstance(service, pb.Service), "only services roll out"
        service.spec.stopped = request.action == control.ROLLOUT_ACTION_STOP
        service.meta.generation += 1
        self._settle(service)
        self.put(service)
        return control.RolloutResponse(service=service, message=control.RolloutAction.Name(request.action).lower())

    def UpdateNode(self, request: control.UpdateNodeRequest, context: Any) -> control.UpdateNodeResponse:
        self._enter("UpdateNode", request, context)
        node = self._existing(control.ObjectReference(kind="node", name=request.node), context)
        assert isinstance(node, pb.Node), "found as a node"
        node.spec.availability = request.availability or node.spec.availability
        node.meta.labels.update(request.set_labels)
        for key in request.remove_labels:
            node.meta.labels.pop(key, None)
        node.meta.generation += 1
        node.spec.lost_since = node.status.since if request.lost else node.spec.lost_since
        if node.spec.availability == pb.AVAILABILITY_DRAIN:
            said = "it has no tasks any more"
            node.status.drain.CopyFrom(pb.DrainStatus(observed_generation=node.meta.generation, message=said))
        self.put(node)
        return control.UpdateNodeResponse(node=node)

    def Logs(self, request: control.LogsRequest, context: Any) -> Iterator[control.LogsResponse]:
        self._enter("Logs", request, context)
        self._only_leader(context)
        self._target(request.namespace, request.service or request.task, context)
        yield from self.log_batches

    def Exec(self, request: Iterator[control.ExecRequest], context: Any) -> Iterator[control.ExecResponse]:
        self._enter("Exec", request, context)
        self._only_leader(context)
        start = next(request)
        self.starts.append(start.start)
        self._target(start.start.namespace, start.start.target, context)
        yield from self.exec_answer(itertools.chain([start], request))

    def CheckNetwork(
        self, request: control.CheckNetworkRequest, context: Any
    ) -> Iterator[control.CheckNetworkResponse]:
        self._enter("CheckNetwork", request, context)
        self._only_leader(context)
        for finding in self.findings:
            yield control.CheckNetworkResponse(findings=[finding])

    def Usage(self, request: control.UsageRequest, context: Any) -> Iterator[control.UsageResponse]:
        self._enter("Usage", request, context)
        self._only_leader(context)
        if not self.looks:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "nothing more to tell")
        for usage in self.looks.pop(0):
            yield control.UsageResponse(usage=usage)

    def ImportImage(self, request: Iterator[control.ImportImageRequest], context: Any) -> control.ImportImageResponse:
        self._enter("ImportImage", request, context)
        options = next(request).options
        self.requests.append(options)
        messages = list(request)
        if not messages or not messages[-1].end:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the archive was cut off on its way")
        archive = b"".join(message.chunk for message in messages)
        self.imported = archive
        image = pb.Image(
            meta=pb.Meta(name=options.name or "archive:latest", created_at=NOW_MS),
            status=pb.ImageStatus(digest="sha256:" + "ab" * 32, size=len(self.imported), layers=1),
        )
        self.put(image)
        return control.ImportImageResponse(images=[image])

    def MissingBlobs(self, request: control.MissingBlobsRequest, context: Any) -> control.MissingBlobsResponse:
        self._enter("MissingBlobs", request, context)
        self._only_leader(context)
        missing = [control.MissingBlob(digest=one.digest) for one in request.blobs if one.digest not in self.blobs]
        return control.MissingBlobsResponse(missing=missing)

    def PushBlob(self, request: Iterator[control.PushBlobRequest], context: Any) -> control.PushBlobResponse:
        self._enter("PushBlob", request, context)
        self._only_leader(context)
        start = next(request).start
        content = b"".join(message.chunk for message in request)
        if digests.of_bytes(content) != start.digest or len(content) != start.size:
            error = control.Error(message=f"blob {start.digest}: the bytes have digest {digests.of_bytes(content)}")
            _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error)
        self.blobs[start.digest] = content
        return control.PushBlobResponse()

    def PushImage(self, request: control.PushImageRequest, context: Any) -> control.PushImageResponse:
        self._enter("PushImage", request, context)
        self._only_leader(context)
        found = manifest.parse_manifest(request.manifest, what="the manifest")
        for entry in (found.config, *found.layers):
            if entry.digest not in self.blobs:
                _refuse(context, grpc.StatusCode.NOT_FOUND, control.Error(message=f"blob {entry.digest} is missing"))
        status = pb.ImageStatus(
            digest=digests.of_bytes(request.manifest),
            size=sum(layer.size_bytes for layer in found.layers),
            layers=len(found.layers),
        )
        image = pb.Image(meta=pb.Meta(name=request.name, created_at=NOW_MS), status=status)
        self.put(image)
        return control.PushImageResponse(image=image)

    def Version(self, request: control.VersionRequest, context: Any) -> control.VersionResponse:
        self._enter("Version", request, context)
        leader, address = ("cp2", self.leader) if self.leader else ("cp1", "10.0.0.1:7400")
        return control.VersionResponse(
            version="0.1.0", instance="cp1", leader=leader, leader_address=address, revision=7
        )

    # Inside.

    def _enter(self, call: str, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.actors[call] = dict(context.invocation_metadata()).get(headers.ACTOR, "")
        if call in self.silent:
            self._speaks.wait(60)
        if call in self.refuses:
            _refuse(context, *self.refuses[call])

    def _target(self, namespace: str, name: str, context: Any) -> None:
        """A service or a task has to be there."""
        if not any(self.find(kind, namespace, name) for kind in ("service", "task")):
            error = control.Error(message=f"there is no service or task {name!r}")
            _refuse(context, grpc.StatusCode.NOT_FOUND, error)

    def _only_leader(self, context: Any) -> None:
        if self.leader:
            error = control.Error(message="another instance leads", leader=self.leader)
            _refuse(context, grpc.StatusCode.FAILED_PRECONDITION, error)

    def _opened(self, message: type) -> int:
        return sum(isinstance(request, message) for request in self.requests)

    def _tell(self, change: control.WatchResponse) -> None:
        copy = control.WatchResponse()
        copy.CopyFrom(change)
        self._changes.append(copy)
        self._lock.notify_all()

    def _existing(self, reference: control.ObjectReference, context: Any) -> kinds.StoredObject:
        value = self.find(reference.kind, reference.namespace, reference.name)
        if value is None:
            error = control.Error(message=f"there is no {reference.kind} {reference.name!r}", hint="look at the list")
            _refuse(context, grpc.StatusCode.NOT_FOUND, error)
        return value

    def _apply(self, wanted: kinds.StoredObject, *, dry_run: bool) -> control.ApplyResult:
        assert isinstance(wanted, pb.Service | pb.Node), "people write these only"
        before = self.find(kinds.of(wanted).name, wanted.meta.namespace, wanted.meta.name)
        there = kinds.wrap(before) if before is not None else None
        if isinstance(before, pb.Service | pb.Node) and before.spec == wanted.spec:
            return control.ApplyResult(object=there, action=control.APPLY_ACTION_UNCHANGED, before=there)
        self._ids += 1
        wanted.meta.id = before.meta.id if before else f"id{self._ids}"
        wanted.meta.generation = (before.meta.generation if before else 0) + 1
        wanted.meta.created_at = NOW_MS
        self._settle(wanted)
        if not dry_run:
            self.put(wanted)
        action = control.APPLY_ACTION_CHANGED if before else control.APPLY_ACTION_CREATED
        changes = ["spec: changed"] if before else []
        return control.ApplyResult(object=kinds.wrap(wanted), action=action, changes=changes, before=there)

    def _settle(self, value: kinds.StoredObject) -> None:
        if self.settles and isinstance(value, pb.Service):
            number = value.spec.replicas
            value.status.CopyFrom(
                pb.ServiceStatus(
                    observed_generation=value.meta.generation,
                    replicas=number,
                    running=number,
                    ready=number,
                    updated=number,
                    settled=True,
                )
            )


@contextlib.contextmanager
def running(fake: FakeControl | None = None, *, address: str = "") -> Iterator[tuple[FakeControl, str]]:
    """The fake behind a real gRPC server at a socket of this machine (empty: another one); the fake and the address."""
    with (
        tempfile.TemporaryDirectory(prefix="orch-fake-") as folder,
        _served(fake or FakeControl(), address or f"unix:{folder}/control") as served,
    ):
        yield served


@contextlib.contextmanager
def _served(fake: FakeControl, address: str) -> Iterator[tuple[FakeControl, str]]:
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    control_pb2_grpc.add_ControlServicer_to_server(fake, server)
    server.add_insecure_port(address)
    server.start()
    try:
        yield fake, address
    finally:
        server.stop(grace=None).wait(10)


def _echo(requests: Iterator[control.ExecRequest]) -> Iterator[control.ExecResponse]:
    """Tells the command, then repeats the input until it ends."""
    start = next(requests).start
    yield control.ExecResponse(started=start.target)
    yield control.ExecResponse(stdout=" ".join(start.command).encode() + b"\n")
    for request in requests if start.stdin else ():
        if request.WhichOneof("message") == "stdin_closed":
            break
        yield control.ExecResponse(stdout=request.stdin)
    yield control.ExecResponse(exit_code=0)


def _refuse(context: Any, code: grpc.StatusCode, error: control.Error) -> NoReturn:
    context.set_trailing_metadata(((headers.ERROR, error.SerializeToString()),))
    context.abort(code, error.message)
    raise AssertionError("abort raises")

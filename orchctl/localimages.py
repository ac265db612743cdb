"""Images of manifests that are on this machine, and perhaps not in the cluster."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from images import errors as image_errors
from images import layout, reference
from images.store import ImageStore
from orchctl import client, errors, progressbars, pushing
from protos import containers, kinds
from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import objects_pb2 as pb

if TYPE_CHECKING:
    from protos.orch.v1.control_pb2_grpc import ControlStub


def named(objects: Iterable[kinds.StoredObject]) -> Sequence[str]:
    """The images of the services that the cluster is to have, each once, as the manifests name them."""
    services = [one.spec.template for one in objects if isinstance(one, pb.Service)]
    every = [one for template in services for one in (*containers.others(template), template.container)]
    return list(dict.fromkeys(one.image for one in every if one.image_pull_policy != pb.IMAGE_PULL_POLICY_NEVER))


def push(server: str, folder: Path, objects: Iterable[kinds.StoredObject]) -> Sequence[pb.Image]:
    """Push those that are on this machine and that the cluster has otherwise or not at all; what was pushed."""
    here = digests(folder, named(objects))
    if not here:
        return []
    with client.connect(server) as stub:
        there = _in_cluster(stub)
    store = ImageStore(folder)
    with progressbars.shown() as watcher:
        return [
            pushing.push(server, store, text, watcher)
            for text, digest in here.items()
            if there.get(reference.parse(text).familiar) != digest
        ]


def explained(
    refusal: errors.InvalidInput, server: str, folder: Path, objects: Iterable[kinds.StoredObject]
) -> errors.InvalidInput:
    """The same refusal; when it is about an image that is on this machine, with what to do about that."""
    here = digests(folder, named(objects))
    if not here:
        return refusal
    with client.connect(server) as stub:
        there = _in_cluster(stub)
    only_here = [text for text in here if reference.parse(text).familiar not in there]
    if not only_here:
        return refusal
    listed = ", ".join(only_here)
    return errors.InvalidInput(
        f"{refusal.message}; {listed} {'is' if len(only_here) == 1 else 'are'} on this machine only",
        hint=f"`orchctl apply --push …` sends what is missing, or `orchctl image push {only_here[0]}`",
        details=refusal.details,
    )


def digests(folder: Path, texts: Iterable[str]) -> Mapping[str, str]:
    """The digests of those that this machine's store has, by tag and without a registry. A store that cannot be read
    has none.
    """
    if not os.access(folder / layout.INDEX, os.W_OK):
        return {}
    store, found = ImageStore(folder), {}
    for text in texts:
        try:
            if not reference.names_registry(text) and reference.parse(text).digest is None:
                found[text] = store.resolve(text).digest
        except image_errors.ImageError:
            continue  # it comes from elsewhere, or the control plane says what is wrong with it
    return found


def _in_cluster(stub: "ControlStub") -> Mapping[str, str]:
    listed = stub.List(control.ListRequest(kind="image"), timeout=client.CALL_TIMEOUT_S).objects
    return {one.image.meta.name: one.image.status.digest for one in listed}

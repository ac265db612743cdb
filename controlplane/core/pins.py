"""What the images of a service mean: settled when it is applied, so that a tag that moves changes nothing by itself.

Three rules. The answer is kept in `spec.images` by the image as the template names it, and a revision is made of the
template and of what its images meant. And an image that the cluster does not have is refused, unless the service has it
already, its name says a registry, or the service says that its nodes have it (`imagePullPolicy: never`). Of the last
nothing is settled: it is whatever each node calls so.

    push web:1 (a)   apply → revision 1: web:1 = a   push web:1 (b)   a task dies → a again   apply → revision 2: b
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from controlplane.core import image_names, relations
from controlplane.core import request_errors as errors
from images import reference
from manifests import suggest
from protos import containers, kinds
from protos.orch.v1 import objects_pb2 as pb

MAX_COMPARED = 2_000
"""Names that a wrong one is compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The images of the cluster: digests by name, such as `web:1`; and of registries: by image, as manifests name
    it.
    """

    digests: Mapping[str, str]
    elsewhere: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def of(cls, images: Iterable[pb.Image], elsewhere: Mapping[str, str] | None = None) -> "Known":
        """What these objects say, and what registries have said."""
        return cls(digests={one.meta.name: one.status.digest for one in images}, elsewhere=elsewhere or {})

    def find(self, text: str) -> str:
        """The digest that an image of a manifest means; empty when nobody has told."""
        return self._find(text) or self.elsewhere.get(text, "")

    def _find(self, text: str) -> str:
        if not image_names.is_reference(text):
            return ""
        pinned = image_names.digest_of(text)
        if pinned is not None:
            return pinned if pinned in self.digests.values() else ""
        return self.digests.get(image_names.canonical(text), "")


def each(template: pb.TaskTemplate) -> tuple[pb.Container, ...]:
    """Every container of a task, in the order of their starts."""
    return (*containers.others(template), template.container)


def names(values: Iterable[kinds.StoredObject]) -> frozenset[str]:
    """The names in the cluster of the images that these services use."""
    texts = {one.image for value in values if isinstance(value, pb.Service) for one in each(value.spec.template)}
    return frozenset(image_names.canonical(text) for text in texts if image_names.is_reference(text))


def of_registries(values: Iterable[kinds.StoredObject], known: Known) -> frozenset[str]:
    """The images of these services that the cluster does not have and that their names say a registry of."""
    texts = {one for value in values if isinstance(value, pb.Service) for one in _to_settle(value.spec.template)}
    return frozenset(text for text in texts if reference.names_registry(text) and not known.find(text))


def pinned(spec: pb.ServiceSpec, known: Known, before: Mapping[str, str]) -> dict[str, str]:
    """What the images of the spec mean now; one that the cluster has no more means what it meant `before`."""
    texts = sorted(_to_settle(spec.template))
    found = {text: known.find(text) or before.get(text, "") or _by_itself(text) for text in texts}
    return {text: digest for text, digest in found.items() if digest}


def _to_settle(template: pb.TaskTemplate) -> set[str]:
    return {one.image for one in each(template) if one.image_pull_policy != pb.IMAGE_PULL_POLICY_NEVER}


def moved(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    """A line for each image that means another one than before."""
    for text in sorted(before.keys() & after.keys()):
        if before[text] != after[text]:
            yield f"image {text}: {_short(before[text])} → {_short(after[text])}"


def refusals(wanted: pb.Service, before: pb.Service | None, known: Known) -> Iterator[relations.Refusal]:
    """Why the service cannot be applied with the images that it names."""
    had = {one.image for one in each(before.spec.template)} if before is not None else set()
    for path, one in _with_paths(wanted.spec.template):
        if one.image not in had and not known.find(one.image) and not _comes_from_elsewhere(one):
            yield _unknown(wanted, path, one.image, known.digests)


def _unknown(wanted: pb.Service, path: str, image: str, known: Collection[str]) -> relations.Refusal:
    # As people write them: `:latest` would make every short name unlike every other.
    meant = suggest.did_you_mean(image, [name.removesuffix(":latest") for name in sorted(known)[:MAX_COMPARED]])
    push = f"`orchctl image push {image}` sends it from your machine, and `orchctl apply --push` does both"
    hint = f"{meant} {push}" if meant else f"{push}; `orchctl get images` lists those that are there"
    return _refusal(wanted, path, f"the cluster has no image {image}", hint)


def _refusal(wanted: pb.Service, path: str, message: str, hint: str) -> relations.Refusal:
    mistake = errors.Mistake(object=kinds.label(wanted), path=path, message=message)
    return relations.Refusal(error=errors.Invalid, mistake=mistake, hint=hint)


def _comes_from_elsewhere(one: pb.Container) -> bool:
    return one.image_pull_policy == pb.IMAGE_PULL_POLICY_NEVER or reference.names_registry(one.image)


def _with_paths(template: pb.TaskTemplate) -> Iterator[tuple[str, pb.Container]]:
    for place in ("init", "sidecars"):
        for number, one in enumerate(getattr(template, place)):
            yield f"spec.template.{place}[{number}].image", one
    yield "spec.template.container.image", template.container


def _by_itself(text: str) -> str:
    """Of an image that is named by its digest."""
    return reference.parse(text).digest or "" if image_names.is_reference(text) else ""


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]

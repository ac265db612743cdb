"""How much the images of the cluster may take on a control plane's disk, and what is said when that is not enough."""

from collections.abc import Mapping, Sequence

from controlplane.core import request_errors as errors
from protos import units
from protos.orch.v1 import objects_pb2 as pb

DEFAULT_LIMIT_BYTES = 64 * 1024**3
SHOWN = 3


def refusal(limit_bytes: int, used: int, wanted: int, images: Mapping[str, pb.Image]) -> errors.Overloaded:
    """Why there is no room: what takes it, the largest first.

    Example: 60 GiB of 64 GiB are used, and 5 GiB are wanted → refused, with the three largest images.
    """
    text = (
        f"{units.about_bytes(wanted)} more do not fit: the cluster's images take {units.about_bytes(used)} of the "
        f"{units.about_bytes(limit_bytes)} that this control plane keeps for them"
    )
    largest = sorted(images.values(), key=lambda one: (-one.status.size, one.meta.name))[:SHOWN]
    held = f"the largest are {_listed(largest)}; " if largest else ""
    hint = f"{held}`orchctl delete image/NAME` frees some; or start the control planes with a larger --images-limit"
    return errors.Overloaded(text, hint=hint)


def _listed(images: Sequence[pb.Image]) -> str:
    return ", ".join(f"{one.meta.name} ({units.about_bytes(one.status.size)})" for one in images)

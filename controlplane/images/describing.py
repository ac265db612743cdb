"""What is said of images when they come in: by their senders, and by us to the store."""

from controlplane.core import image_names
from controlplane.core import request_errors as errors
from images import blobs, image, reference
from images import digest as digests
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb


def check(options: api.ImportImageOptions) -> None:
    """Before the upload, not after it."""
    if options.name:
        check_name(options.name)


def check_name(name: str) -> None:
    """Raises `InvalidReference`, or Invalid when it names an image by its digest."""
    if reference.parse(name).digest is not None:
        raise errors.Invalid(f"an image cannot be named by a digest: {name}", hint="name it like hello:1.0")


def check_blob(digest: str, size_bytes: int, offset: int = 0) -> None:
    """Raises `InvalidReference` or Invalid for what can be no blob."""
    digests.check(digest, what="blob")
    if not 0 <= offset <= size_bytes <= blobs.MAX_BLOB_BYTES:
        text = f"blob {digest}: {size_bytes} bytes from {offset} on; at most {blobs.MAX_BLOB_BYTES >> 30} GiB are taken"
        raise errors.Invalid(text, hint="split the layer")


def config(options: api.ImportImageOptions) -> image.Config | None:
    """What the options say of a root file system; None when they say nothing."""
    said = image.Config(
        entrypoint=tuple(options.entrypoint),
        cmd=tuple(options.cmd),
        env=tuple(options.env),
        working_dir=options.working_dir,
        user=options.user,
        exposed_ports=tuple(port if "/" in port else f"{port}/tcp" for port in options.expose),
    )
    return said if said != image.Config() else None


def described(name: str, found: image.Image) -> pb.Image:
    """The object that stands for an image, without its id."""
    return pb.Image(
        meta=pb.Meta(name=image_names.canonical(name)),
        status=pb.ImageStatus(
            digest=found.digest,
            size=found.size_bytes,
            platform=str(found.platform),
            layers=len(found.layers),
            blobs=[pb.ImageBlob(digest=layer.digest, size=layer.size_bytes) for layer in found.layers],
        ),
    )

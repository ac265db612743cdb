"""What the cluster calls an image: the reference as people write it, always with its tag, such as `hello:latest`."""

from images import errors, reference


def canonical(text: str) -> str:
    """`hello` → `hello:latest`; `docker.io/library/hello:1` → `hello:1`; a digest is left out.

    Raises `images.errors.InvalidReference`.
    """
    parsed = reference.parse(text)
    tag = parsed.tag or reference.DEFAULT_TAG
    short = reference.Reference(registry=parsed.registry, repository=parsed.repository, tag=tag).short
    return f"{short}:{tag}" if tag == reference.DEFAULT_TAG else short


def digest_of(text: str) -> str | None:
    """The digest that the reference pins; None when it names a tag only. Raises `InvalidReference`."""
    return reference.parse(text).digest


def is_reference(text: str) -> bool:
    """Whether it can be read as one."""
    try:
        reference.parse(text)
    except errors.InvalidReference:
        return False
    return True

"""Objects in the store: protos on one side, keys and bytes on the other.

Two rules. `meta.version` is the entry's version on the way out and is not stored, so equal objects are equal bytes. And
a change expects the version that its object was read with, unless the caller says otherwise; version 0 creates.
"""

from google.protobuf import message as protobuf

from controlplane.core import plan
from controlplane.store import api, errors
from protos import kinds


def put(value: kinds.StoredObject, *, lease: int | None = None) -> api.Put:
    """Write the object over the version that it was read with (`meta.version`; 0 = it must not exist yet)."""
    return api.Put(key=kinds.key(value), value=encode(value), expect=value.meta.version, lease=lease)


def overwrite(value: kinds.StoredObject) -> api.Put:
    """Write the object whatever is there. For fields with one writer only."""
    return api.Put(key=kinds.key(value), value=encode(value))


def delete(value: kinds.StoredObject) -> api.Delete:
    """Remove the object unless it was changed since it was read."""
    assert value.meta.version, f"{kinds.label(value)} was never read from the store"
    return api.Delete(key=kinds.key(value), expect=value.meta.version)


def of_change(change: plan.Change) -> api.Change:
    """A planned change, for the store."""
    return put(change.value) if isinstance(change, plan.Write) else delete(change.value)


def encode(value: kinds.StoredObject) -> bytes:
    """The bytes that are stored: without the version, and with maps in one order."""
    if value.meta.version:
        copy = type(value)()
        copy.CopyFrom(value)  # type: ignore[arg-type]  # the same type
        copy.meta.version = 0
        value = copy
    return value.SerializeToString(deterministic=True)


def decode(key: str, value: bytes, version: int) -> kinds.StoredObject | None:
    """The object of an entry; None for keys of no kind known here, which a newer release may have written.

    `Fatal` when the bytes are no such object: to skip it would be to treat it as deleted.
    """
    kind = kinds.kind_of_key(key)
    if kind is None:
        return None
    try:
        decoded = kind.message.FromString(value)
    except protobuf.DecodeError as error:
        raise errors.Fatal(
            f"the {len(value)} bytes at {key} (version {version}) are no {kind.title}: {error}; "
            f"restore the key from a backup or remove it with etcdctl"
        ) from error
    decoded.meta.version = version
    return decoded

"""The parts of an OCI image layout that the store, the import and the export share (OCI image layout specification)."""

from __future__ import annotations

from images import digest as digests
from images import documents

MARKER = "oci-layout"
INDEX = "index.json"
MARKER_BYTES = documents.dump({"imageLayoutVersion": "1.0.0"})

# Annotations of an index entry that name its image: the specification's, and containerd's, which is always a full name.
REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"


def check_marker(data: bytes, *, what: str) -> None:
    marker = documents.parse(data, what=what)
    if marker.text("imageLayoutVersion") != "1.0.0":
        marker.refuse("imageLayoutVersion", "only 1.0.0 is known; was it made by a newer version?")


def blob_path(digest: str) -> str:
    """Where a blob lies, relative to the layout."""
    return f"blobs/sha256/{digests.hex_of(digest)}"

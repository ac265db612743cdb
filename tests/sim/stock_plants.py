"""A bug in what the leader knows of images that somebody might really make, to be planted as those in `plants`."""

from controlplane.dispatcher.blobs import BlobBook
from tests.sim.planting import Plant, instead

STOCK_PLANTS = (
    Plant(
        name="who has gone still counts as one with images",
        bug=instead(BlobBook, "forget", lambda _book, _node_id: None),
        caught_by=frozenset({"who is counted on is there"}),
        hint=20_005,
    ),
)

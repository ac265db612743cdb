"""What an agent is told of images on its command line: what it gives to other nodes, and what may stay on its disk."""

import argparse
import sys
from typing import TYPE_CHECKING

from agent.core import sharing
from images import collect
from images.registry import options as registry_options
from protos import arguments, units

if TYPE_CHECKING:
    from agent.core.imageroom import Limits

BLOB_PORT = 7402
"""The usual one."""


def add(parser: argparse.ArgumentParser) -> None:
    """Adds them."""
    registry_options.add(parser, what_for="for images whose name says one and that the cluster does not have")
    _add_sharing(parser)
    _add_room(parser)


def sharing_of(options: argparse.Namespace) -> sharing.Limits:
    """What this node gives to others."""
    limits = sharing.Limits(transfers=options.share_transfers, bytes_per_s=options.share_rate)
    if limits.transfers < 1:
        sys.exit("orch-agent: --share-transfers must be 1 at least; --blob-port 0 gives nothing to other nodes")
    if 0 < limits.bytes_per_s < sharing.least_rate(limits.transfers):
        least = units.about_bytes(sharing.least_rate(limits.transfers))
        sys.exit(
            f"orch-agent: --share-rate {options.share_rate} is too little for {limits.transfers} transfers at a time, "
            f"since nodes give up whoever sends too slowly: {least} at least, or fewer --share-transfers"
        )
    return limits


def _add_sharing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--blob-port",
        default=BLOB_PORT,
        type=int,
        metavar="PORT",
        help="where this node gives layers of images to other nodes, at --address; 0: nowhere (default: %(default)s)",
    )
    parser.add_argument(
        "--share-transfers",
        default=sharing.TRANSFERS,
        type=int,
        metavar="N",
        help="to how many nodes it gives layers at a time; the leader sends no more than 3 (default: %(default)s)",
    )
    parser.add_argument(
        "--share-rate",
        default=0,
        type=arguments.size,
        metavar="BYTES",
        help="how much of that in a second, such as 50Mi, and 512Ki for each transfer at least (default: as much as "
        "goes through)",
    )


def _add_room(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images-high",
        default=collect.Marks().high_percent,
        type=_percent,
        metavar="PERCENT",
        help="from so much of the disk in use, images that nothing needs make room (default: %(default)s)",
    )
    parser.add_argument(
        "--images-low",
        default=collect.Marks().low_percent,
        type=_percent,
        metavar="PERCENT",
        help="and go until it is so much, the least recently used first (default: %(default)s)",
    )
    parser.add_argument(
        "--images-max-age",
        default="168h",
        type=arguments.seconds,
        metavar="DURATION",
        help="images that were not used for so long go in any case; 0s: never (default: %(default)s)",
    )


def room_of(options: argparse.Namespace) -> "Limits":
    """What its images may take."""
    from agent.core import imageroom  # takes time, which reading options need not

    if options.images_low >= options.images_high:
        sys.exit(f"orch-agent: --images-low {options.images_low} must be less than --images-high {options.images_high}")
    marks = collect.Marks(high_percent=options.images_high, low_percent=options.images_low)
    return imageroom.Limits(marks=marks, max_age_s=options.images_max_age)


def _percent(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 100")
    return int(text)

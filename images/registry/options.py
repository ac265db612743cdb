"""What long-lived programs are told of registries on their command lines. Importing it costs nothing."""

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser, *, what_for: str) -> None:
    """`--registries` and `--registry-credentials`; `what_for` ends the sentence that says what they serve."""
    parser.add_argument(
        "--registries",
        type=Path,
        metavar="FILE",
        help=f"registries, their mirrors and CAs, {what_for} (default: /etc/orch/registries.yaml, if it is there)",
    )
    parser.add_argument(
        "--registry-credentials",
        type=Path,
        metavar="FILE",
        help="users and passwords for them, as `orchctl image login` keeps them (default: ~/.docker/config.json)",
    )

"""`python -m runtime.cli`, from a tree that is not installed."""

from runtime.cli import main

main.main()

"""`python -m orchctl`."""

from orchctl.main import main

main()

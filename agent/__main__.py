"""`python -m agent`."""

from agent.main import main

main()

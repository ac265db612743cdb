"""`python -m tests.vm`."""

import sys

from tests.vm import machine

sys.exit(machine.main())

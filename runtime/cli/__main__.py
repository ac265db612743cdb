"""The command's first steps: what makes processes of containers goes on as a sealed copy before it imports anything.

Such a copy starts anew, so what was imported before was imported for nothing.
"""

import sys

from runtime import sealed

if not sealed.NEEDED_BY.isdisjoint(sys.argv[1:]):
    sealed.ensure()

from runtime.cli import main

main.main()

"""`python -m controlplane`: one instance of the control plane."""

import sys

from controlplane.main import main

sys.exit(main())

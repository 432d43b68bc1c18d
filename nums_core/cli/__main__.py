"""`python -m nums_core.cli`."""

import sys

from nums_core.cli.main import main

sys.exit(main())

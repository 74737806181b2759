"""`python -m fastslow` is `fastslow`."""

import sys

from fastslow.cli.main import main

sys.exit(main())

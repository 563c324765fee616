"""`python -m sglib study | store`: see `sglib.runs`."""

import sys

from sglib.runs import main

sys.exit(main())

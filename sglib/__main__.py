"""`python -m sglib study | store`: see `sglib.runs`; `python -m sglib evidence`: see `sglib.training.evidence`."""

import sys

if sys.argv[1:2] == ["evidence"]:
    from sglib.training.evidence import main

    sys.exit(main(sys.argv[2:]))

from sglib.runs import main

sys.exit(main())

"""`python -m sglib study | store`: see `sglib.runs`; `python -m sglib evidence`: see `sglib.training.evidence`;
`python -m sglib verdicts`: see `sglib.claims`."""

import sys

if sys.argv[1:2] == ["evidence"]:
    from sglib.training.evidence import main

    sys.exit(main(sys.argv[2:]))

if sys.argv[1:] == ["verdicts"]:
    from sglib.claims import main

    sys.exit(main())

from sglib.runs import main

sys.exit(main())

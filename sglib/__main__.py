"""`python -m sglib study | store`: see `sglib.experiments.study`; `evidence`: see `sglib.experiments.cells`;
`verdicts`: see `sglib.experiments.verdicts`."""

import sys

if sys.argv[1:2] == ["evidence"]:
    from sglib.experiments.cells import main

    sys.exit(main(sys.argv[2:]))

if sys.argv[1:] == ["verdicts"]:
    from sglib.experiments.verdicts import main

    sys.exit(main())

from sglib.experiments.study import main

sys.exit(main())

"""`python3 -m clawos.clawsh`: the same as /usr/bin/clawsh."""

from clawos.clawsh.main import main

raise SystemExit(main())

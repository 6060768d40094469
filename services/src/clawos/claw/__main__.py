"""`python3 -m clawos.claw`: the same as /usr/bin/claw."""

from clawos.claw.main import main

raise SystemExit(main())

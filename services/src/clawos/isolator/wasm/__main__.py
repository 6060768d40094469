"""run-wasm --fuel N --memory-bytes N … [--read DIR]… [--write DIR]… MODULE [ARGUMENT]…

The options are written by the isolator (`options.py`); the exit codes are in `ends.py`.
"""

from __future__ import annotations

import os
import sys

from clawos.isolator.wasm import ends
from clawos.isolator.wasm.ends import Ended
from clawos.isolator.wasm.options import Usage, parse
from clawos.isolator.wasm.runner import leave, run


def main() -> None:
    try:
        code = run(parse(sys.argv[1:]))
    except Ended as ended:
        leave(ended)
    except Usage as usage:
        leave(Ended(ends.RUNNER, str(usage)))
    except (OSError, AttributeError) as error:
        leave(Ended(ends.RUNNER, f"libwasmtime cannot be used: {error}"))
    else:
        # At once: taking the engine down would only give back what the end of the process gives back.
        os._exit(code)


if __name__ == "__main__":
    main()

"""`python -m daramjwee.bench`: see `daramjwee.bench.runner.main`."""

from __future__ import annotations

import sys

from daramjwee.bench.runner import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m daramjwee`: the command line."""

from __future__ import annotations

from daramjwee.cli.main import run

if __name__ == "__main__":
    run()

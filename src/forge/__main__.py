"""`python -m forge` is the `forge` command."""

from __future__ import annotations

from forge.cli.main import main

main()

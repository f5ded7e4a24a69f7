"""`python -m bench`, for launchers that start modules."""

from bench.cli import main

main()

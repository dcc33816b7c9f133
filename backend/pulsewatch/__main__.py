"""`python -m pulsewatch` is the command `pulsewatch`."""

from pulsewatch.cli import main

main()

"""`python -m extender` is `maddpg-extender`."""

from extender.cli import main

main()

"""`python -m ablatrix`: the command line where the console script is not on the path, as in a Ray job."""

from ablatrix.cli import main

main()

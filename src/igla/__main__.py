"""python -m igla"""

from igla.cli import main

main()

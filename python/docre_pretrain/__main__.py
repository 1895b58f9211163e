"""`python -m docre_pretrain` is the command `docre-pretrain`."""

import sys

from ._command import main

if __name__ == "__main__":
    sys.exit(main())

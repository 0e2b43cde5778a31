"""``python -m sb3_mirl``, same as the command ``sb3-mirl``."""

import sys

from sb3_mirl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

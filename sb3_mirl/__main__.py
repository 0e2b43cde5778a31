"""``python -m sb3_mirl`` is the command ``sb3-mirl``."""

import sys

from sb3_mirl.zoo import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m lpw_sdxl.prompt`: the public name of a command of `conditioning`."""

import sys

from lpw_sdxl.conditioning.__main__ import main

if __name__ == "__main__":
    sys.exit(main())

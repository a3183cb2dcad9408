"""`python -m lpw_sdxl.prompt`: the command's public name; `conditioning` has the command."""

import sys

from lpw_sdxl.conditioning.__main__ import main

if __name__ == "__main__":
    sys.exit(main())

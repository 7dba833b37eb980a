"""`python -m ram_client` is the command `ram-tag`."""

import sys

from .cli import main

sys.exit(main())

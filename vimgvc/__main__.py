"""`python -m vimgvc`."""

import sys

from vimgvc.cli import main

sys.exit(main.main())

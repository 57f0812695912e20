"""``python -m mediaserver``: the same as the ``mediaserver`` command."""

import sys

from mediaserver.cli import main

sys.exit(main())

"""``python -m bids_app`` is the BIDS App."""

import sys

from bids_app.cli.main import main

sys.exit(main())

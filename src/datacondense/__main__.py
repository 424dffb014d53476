"""`python -m datacondense` runs the command line, as `datacondense` does."""

import sys

from datacondense.cli import main

sys.exit(main())

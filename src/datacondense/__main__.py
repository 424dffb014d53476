"""`python -m datacondense` is the command line, as `datacondense` is."""

import sys

from datacondense.cli import main

sys.exit(main())

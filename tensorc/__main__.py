"""`python -m tensorc` is the command `tensorc`."""

from tensorc.cli import main

raise SystemExit(main())

"""`python -m pretrainps` is the same as the `pretrainps` command."""

from pretrainps.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

"""The `pretrainps` command."""

from pretrainps.cli.main import main as main

"""The command line: `pretrainps COMMAND`."""

from pretrainps.cli.main import main as main

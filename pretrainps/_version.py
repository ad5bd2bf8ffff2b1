"""The version, alone in its module so that neither the build nor `--version` imports anything else."""

__version__ = "0.1.0"

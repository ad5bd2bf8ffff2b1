"""Intra-task alignment: features of the data sets of one sub-task are made alike."""

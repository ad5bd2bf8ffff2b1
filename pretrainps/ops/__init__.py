"""Operators that networks share: non-maximum suppression, sparse RoIAlign, Winograd convolutions, precision."""

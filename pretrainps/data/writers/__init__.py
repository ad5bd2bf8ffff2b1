"""Miniatures of real data sets, written in their layouts: what the readers are tested on, and a way to write any records."""

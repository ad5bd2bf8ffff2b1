"""Miniatures of real data sets, in their layouts: small, with what readers of the real ones trip over."""

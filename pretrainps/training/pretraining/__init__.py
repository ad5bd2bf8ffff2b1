"""Hybrid pre-training: one backbone learns from detection sets and re-ID sets at once."""

"""Answers of a search for the eye: one picture, or one HTML report."""

"""Weights and whole models written for other code bases and runtimes."""

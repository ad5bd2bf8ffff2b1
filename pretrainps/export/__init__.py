"""Weights and whole models written for other code bases and runtimes."""

from pretrainps.export.graph.export import export_graph as export_graph
from pretrainps.export.weights import export_weights as export_weights

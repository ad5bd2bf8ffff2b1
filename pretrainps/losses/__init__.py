"""Identity losses: online instance matching with its tables, and the losses of several re-ID sets."""

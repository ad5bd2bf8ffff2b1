"""Identity losses: online instance matching (OIM), and classification and triplet losses over several re-ID data sets."""

"""Two-stage detectors: proposals on the stride-16 map, and the backbone's last stage on each region."""

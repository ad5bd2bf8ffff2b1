"""The field's protocols: detection, re-identification and person search."""

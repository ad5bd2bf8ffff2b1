"""The page in the browser: upload photos, click a person, see where else they are."""

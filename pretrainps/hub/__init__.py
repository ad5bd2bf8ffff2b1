"""From a name to a model and back: resolve, load, build, save, publish."""

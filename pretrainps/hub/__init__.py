"""The hub of models: resolve names, load, build, save and publish models."""

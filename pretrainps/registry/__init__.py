"""The registry of models as data: specs, TOML files and look-up by name. It does not import torch."""

from pretrainps.registry.lookup import find_spec as find_spec
from pretrainps.registry.lookup import list_models as list_models
from pretrainps.registry.lookup import registry as registry
from pretrainps.registry.lookup import shipped_model as shipped_model
from pretrainps.registry.parse import parse_spec as parse_spec
from pretrainps.registry.parse import spec_to_mapping as spec_to_mapping
from pretrainps.registry.specs import ModelSpec as ModelSpec

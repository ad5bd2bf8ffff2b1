"""Settings of a built model: set anew, in a copy that shares the weights, or for one call. What goes by them follows."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, Generic, Self, TypeVar

from torch import nn

from pretrainps.detectors.config import DetectorConfig

Config = TypeVar("Config", bound=DetectorConfig)


class ConfigurableModel(nn.Module, ABC, Generic[Config]):
    """Base of models that go by a config.

    Args:
        config: The settings that it is built with.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._config = config

    @property
    def config(self) -> Config:
        """The settings. Setting another config changes everything that goes by it, also in what is saved.

        Raises:
            ArgumentError: set to a config of another detector, or with another value of a field that belongs to the weights.
        """
        return self._config

    @config.setter
    def config(self, config: Config) -> None:
        self._config.require_same_weights(config)
        old, self._config = self._config, config
        self._follow(old)

    def configured(self, **changes: Any) -> Self:
        """Return the same model with other settings: a model of its own that shares this one's weights.

        Move a model to a device, or train it, before this and not after: what happens to the weights of one happens to both.

        Args:
            changes: Fields of `config`, such as `score_threshold=0.2, min_size=600, max_detections=50`.

        Raises:
            ArgumentError: a field that there is not (names the nearest), that belongs to the weights, or with a value that
                cannot be.

        Example:
            >>> import pretrainps
            >>> model = pretrainps.load("seqnet-tiny-synthetic", progress=False)
            >>> sure = model.configured(score_threshold=0.9)
            >>> model.config.score_threshold, sure.config.score_threshold
            (0.5, 0.9)
        """
        config = self.config.changed(changes)
        other = copy.deepcopy(self, {id(each): each for each in (*self.parameters(), *self.buffers())})
        other.config = config
        return other

    def __copy__(self) -> Self:
        """Return a model that shares this one's weights and not its settings.

        Its modules are copies without depth: each holds settings of its own, and shares all that is below it.
        """
        view = type(self).__new__(type(self))
        view.__dict__ = {**self.__dict__, "_modules": {name: copy.copy(each) for name, each in self._modules.items()}}
        return view

    def _with(self, **settings: float | None) -> Self:
        """Return a view of the model with other settings, for one call; the model itself if all are `None`."""
        given = {name: value for name, value in settings.items() if value is not None}
        if not given:
            return self
        config = self.config.changed(given)
        view = copy.copy(self)
        view._config = config
        view._follow(self.config)
        return view

    @abstractmethod
    def _follow(self, old: Config) -> None:
        """Bring everything that goes by the config in line with it.

        Args:
            old: The config that everything goes by until now.
        """

"""Training: an engine that goes on exactly where it was stopped, and what it trains.

`train` is the loop; a `Task` says what it trains on, `OptimSettings` and `LoopSettings` how. Needs the extra `train`.
"""

from pretrainps.training.engine import RunResult as RunResult
from pretrainps.training.engine import train as train
from pretrainps.training.overrides import override as override
from pretrainps.training.overrides import setting_names as setting_names
from pretrainps.training.plot import plot_run as plot_run
from pretrainps.training.settings import LoopSettings as LoopSettings
from pretrainps.training.settings import OptimSettings as OptimSettings
from pretrainps.training.task import Batch as Batch
from pretrainps.training.task import DescribedTask as DescribedTask
from pretrainps.training.task import LoaderStream as LoaderStream
from pretrainps.training.task import Stream as Stream
from pretrainps.training.task import Task as Task

"""Training: an engine that resumes exactly where it was stopped, and the trainings that it runs.

`train` is the loop. A `Task` is a model with its data; `OptimSettings` and `LoopSettings` say how it is trained. Needs the
extra `train`.
"""

from pretrainps.training.engine.loop import RunResult as RunResult
from pretrainps.training.engine.loop import train as train
from pretrainps.training.engine.overrides import override as override
from pretrainps.training.engine.overrides import setting_names as setting_names
from pretrainps.training.engine.plot import plot_run as plot_run
from pretrainps.training.engine.settings import LoopSettings as LoopSettings
from pretrainps.training.engine.settings import OptimSettings as OptimSettings
from pretrainps.training.engine.task import Batch as Batch
from pretrainps.training.engine.task import DescribedTask as DescribedTask
from pretrainps.training.engine.task import LoaderStream as LoaderStream
from pretrainps.training.engine.task import Stream as Stream
from pretrainps.training.engine.task import Task as Task

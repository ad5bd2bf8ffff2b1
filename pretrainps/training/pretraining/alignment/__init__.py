"""Intra-task alignment: features of the data sets of one sub-task are made alike, so that what is learned fits all of them.

Tian et al., "Divide and Conquer: Hybrid Pre-training for Person Search", AAAI 2024, has an intra-task alignment module "that
alleviates domain discrepancy under limited resources". How it works we could not find, and its code was never published.
**What is here is this package's own design, not the paper's.** Each module is one method and says where its idea is from.

Whichever it is, a sub-task with a single data set is left as it is. Scenes and crops are never aligned with each other: a
detector must tell people from background, and an embedding must tell people from people.

To add a method, write a module with a subclass of `Alignment` under `@register_alignment(NAME)`, and import it here.
"""

from pretrainps.training.pretraining.alignment import adversarial, domain_norm, mmd  # noqa: F401  they register themselves
from pretrainps.training.pretraining.alignment.base import ALIGNMENTS as ALIGNMENTS
from pretrainps.training.pretraining.alignment.base import Alignment as Alignment
from pretrainps.training.pretraining.alignment.base import AlignmentSettings as AlignmentSettings
from pretrainps.training.pretraining.alignment.base import SubTask as SubTask
from pretrainps.training.pretraining.alignment.base import TaskFeatures as TaskFeatures
from pretrainps.training.pretraining.alignment.base import register_alignment as register_alignment

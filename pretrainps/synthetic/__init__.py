"""Synthetic data sets: drawn scenes with boxes, crops with identities and person-search galleries, reproducible by seed.

Everything is drawn by numpy and Pillow from random numbers; no image of a real person is used. In tests, examples and trial
trainings it replaces the real data sets, which may not be redistributed. A detector or an embedding trained on it does not
work on photographs.

The same seed gives the same boxes, identities and cameras everywhere. Pixels may differ by a few grey levels between versions
of Pillow or of its JPEG library.
"""

from pretrainps.synthetic.domains import DOMAINS as DOMAINS
from pretrainps.synthetic.domains import Domain as Domain
from pretrainps.synthetic.domains import find_domain as find_domain
from pretrainps.synthetic.search import FIRST_TEST_PERSON as FIRST_TEST_PERSON
from pretrainps.synthetic.search import SearchPlan as SearchPlan
from pretrainps.synthetic.search import plan_search as plan_search
from pretrainps.synthetic.search import search_scenes as search_scenes
from pretrainps.synthetic.search import search_set as search_set
from pretrainps.synthetic.search import search_test as search_test
from pretrainps.synthetic.search import search_train as search_train
from pretrainps.synthetic.sets import crops as crops
from pretrainps.synthetic.sets import detection_split as detection_split
from pretrainps.synthetic.sets import reid_split as reid_split
from pretrainps.synthetic.sets import scenes as scenes

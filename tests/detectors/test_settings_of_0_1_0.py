"""Settings that commit 749f621 wrote are read, and fingerprints made of settings are what they were there."""

from __future__ import annotations

import hashlib
import json

import pytest

from pretrainps.detectors import DETECTORS
from pretrainps.errors import ArgumentError

OLD = {"num_identities": 5, "queue_size": 7, "min_size": 300, "weigh_by_score": False}
FINGERPRINTS = {  # of str(config) and of json.dumps(config.changes(), sort_keys=True), by that commit
    "oim": ("e6515566f055fe1a", "7b334d540f28bb1a"),
    "nae": ("17bdcc666349255f", "ae62c4d8df37f1da"),
    "nae+": ("ade2f9e1c80438b2", "ae62c4d8df37f1da"),
    "seqnet": ("26923e4db53f3a53", "ae62c4d8df37f1da"),
}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_fingerprints_are_those_of_before(name: str) -> None:
    config = DETECTORS[name].config.from_mapping(OLD)
    assert config.score_weighting is False
    fields = json.dumps(config.fingerprint_fields(), sort_keys=True)
    assert (digest(config.fingerprint_text()), digest(fields)) == FINGERPRINTS[name]


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_a_former_name_is_read_where_the_present_one_is(name: str) -> None:
    kind = DETECTORS[name].config
    config = kind.from_mapping(OLD)
    assert kind.from_mapping(config.non_defaults()) == config and "weigh_by_score" not in config.non_defaults()
    assert config.changed({"weigh_by_score": True}).score_weighting is True
    for read in (
        lambda: kind.from_mapping({**OLD, "score_weighting": True}),
        lambda: kind.from_mapping({**OLD, "weigh": True}),
    ):
        with pytest.raises(ArgumentError, match=r"score_weighting|no field 'weigh'"):
            read()

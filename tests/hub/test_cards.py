"""Cards are current with the registry, and the Hub accepts them."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from pretrainps.hub.cards import render_card, write_cards
from pretrainps.registry import ModelSpec, registry

CARDS = Path(__file__).parents[2] / "model_cards"
LICENCES_OF_THE_HUB = {"apache-2.0", "bsd-3-clause", "mit", "other"}


def test_cards_on_disk_are_those_of_the_registry(tmp_path: Path) -> None:
    fresh = {p.name: p.read_text() for p in write_cards(tmp_path)}
    assert fresh == {p.name: p.read_text() for p in CARDS.glob("*.md")}, "run python -m pretrainps.hub.cards model_cards"


@pytest.mark.parametrize("spec", registry().values(), ids=lambda spec: spec.name)
def test_metadata_is_what_the_hub_knows(spec: ModelSpec) -> None:
    data = ModelCard(render_card(spec)).data
    assert data.license in LICENCES_OF_THE_HUB and data.library_name == "pretrainps"
    assert "person-search" in data.tags


@pytest.mark.parametrize("spec", registry().values(), ids=lambda spec: spec.name)
def test_a_card_says_what_matters(spec: ModelSpec) -> None:
    text = render_card(spec)
    for words in (spec.licence.stated_in, spec.input.status, spec.provenance.url, f'pretrainps.load("{spec.name}")'):
        assert words in text


def test_a_detectors_card_shows_scenes_and_not_crops() -> None:
    text = render_card(registry()["seqnet-resnet50-prw"])
    assert "pipeline_tag: object-detection" in text and "people = model([image])" in text
    assert "- Detector: `seqnet` with num_identities = 482, queue_size = 500, identity_numbering = original" in text
    assert "resized and normalized inside the model" in text
    assert "crops" not in text and "preprocess" not in text


def test_an_archives_member_is_named() -> None:
    text = render_card(registry()["nae-resnet50-cuhk"])
    assert "cuhk_sysu/checkpoint.pth out of the archive https://github.com/" in text

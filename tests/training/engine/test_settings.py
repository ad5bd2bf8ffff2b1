"""Settings refuse what cannot be, and overrides what is misspelt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrainps.detectors import SeqNetConfig
from pretrainps.errors import ArgumentError, TrainingError
from pretrainps.training import LoopSettings, OptimSettings, override, setting_names
from pretrainps.training.engine.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    optim: OptimSettings = field(default_factory=OptimSettings)
    loop: LoopSettings = field(default_factory=LoopSettings)
    detector: Mapping[str, Any] = field(default_factory=lambda: {"min_size": 900})
    name: str = "seqnet"


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (OptimSettings, {"lr": 0.0}),
        (OptimSettings, {"lr": float("nan")}),
        (OptimSettings, {"kind": "lion"}),
        (OptimSettings, {"momentum": 1.0}),
        (OptimSettings, {"milestones": (16, 8)}),
        (OptimSettings, {"milestones": (0,)}),
        (OptimSettings, {"clip_norm": 0.0}),
        (OptimSettings, {"reference_batch": 0}),
        (OptimSettings, {"schedule": "poly"}),
        (OptimSettings, {"warmup_factor": 1.5}),
        (LoopSettings, {"epochs": 0}),
        (LoopSettings, {"accumulate": 0}),
        (LoopSettings, {"precision": "fp16"}),
        (LoopSettings, {"ema_decay": 1.0}),
        (LoopSettings, {"checkpoint_minutes": 0.0}),
        (LoopSettings, {"checkpoint_steps": 0}),
        (LoopSettings, {"keep": 0}),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_by_name(kind: Any, values: dict[str, Any]) -> None:
    ((name, _),) = values.items()
    with pytest.raises(ArgumentError, match=rf"{kind.__name__}\.{name} must be"):
        kind(**values)


def test_two_warmups_are_refused() -> None:
    with pytest.raises(ArgumentError, match="not both"):
        OptimSettings(warmup_steps=5, warmup_epochs=1.0)


@pytest.mark.parametrize(
    ("assignment", "where", "expected"),
    [
        ("optim.lr=1e-4", ("optim", "lr"), 1e-4),
        ("optim.lr = 1", ("optim", "lr"), 1.0),
        ("optim.kind=adamw", ("optim", "kind"), "adamw"),
        ("optim.milestones=8,11", ("optim", "milestones"), (8.0, 11.0)),
        ("optim.milestones=(8, 11)", ("optim", "milestones"), (8.0, 11.0)),
        ("optim.milestones=", ("optim", "milestones"), ()),
        ("optim.betas=0.8,0.9", ("optim", "betas"), (0.8, 0.9)),
        ("optim.clip_norm=none", ("optim", "clip_norm"), None),
        ("optim.clip_norm=5", ("optim", "clip_norm"), 5.0),
        ("loop.max_steps=7", ("loop", "max_steps"), 7),
        ("loop.tensorboard=True", ("loop", "tensorboard"), True),
        ("name=nae+", ("name",), "nae+"),
    ],
)
def test_override_reads_by_type(assignment: str, where: tuple[str, ...], expected: object) -> None:
    found: Any = override(Recipe(), [assignment])
    for name in where:
        found = getattr(found, name)
    assert found == expected and type(found) is type(expected)


def test_override_leaves_everything_else() -> None:
    recipe = Recipe()
    changed = override(recipe, ["optim.lr=0.1", "optim.lr=0.2", "detector.min_size=600", "detector.pooling=average"])
    assert changed == Recipe(optim=OptimSettings(lr=0.2), detector={"min_size": 600, "pooling": "average"})
    assert recipe == Recipe()


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("optim.lrr=1", "Did you mean 'optim.lr'?"),
        ("lr=1", "Did you mean 'optim.lr'?"),
        ("loop.learning=1", "There are: optim.kind"),
        ("optim.lr.deep=1", "no such setting"),
        ("optim=1", "name one of them: kind, lr"),
        ("optim.lr", "expected name=value"),
        ("optim.lr=fast", "expected a number"),
        ("loop.epochs=2.5", "expected a whole number"),
        ("loop.tensorboard=1", "expected true or false"),
        ("optim.kind=lion", "expected one of sgd, adamw"),
        ("optim.betas=0.9", "expected 2 values"),
        ("optim.lr=none", "expected a number"),
        ("optim.lr=-1", r"OptimSettings.lr must be a number above 0"),
    ],
)
def test_override_refuses(assignment: str, says: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        override(Recipe(), [assignment])
    assert says in str(caught.value)


@given(
    lr=st.floats(1e-8, 10.0),
    steps=st.none() | st.integers(1, 10**9),
    milestones=st.lists(st.integers(1, 1000), unique=True).map(lambda found: tuple(float(each) for each in sorted(found))),
)
def test_every_value_can_be_given(lr: float, steps: int | None, milestones: tuple[float, ...]) -> None:
    given_ = [f"optim.lr={lr}", f"loop.max_steps={steps}", f"optim.milestones={milestones}"]
    expected = Recipe(optim=OptimSettings(lr=lr, milestones=milestones), loop=LoopSettings(max_steps=steps))
    assert override(Recipe(), given_) == expected


def test_names_are_those_that_can_be_set() -> None:
    names = setting_names(Recipe())
    assert {"optim.lr", "loop.ema_decay", "detector.min_size", "name"} <= set(names)
    assert not {"optim", "loop", "detector"} & set(names)


def test_limits_between_fields_hold_for_the_whole() -> None:
    """Neither order of two changes passes through settings that cannot be."""
    config = SeqNetConfig(num_identities=3)
    for order in (["max_size=600", "min_size=400"], ["min_size=400", "max_size=600"], ["min_size=1600", "max_size=1700"]):
        found = override(config, order)
        assert [f"min_size={found.min_size}", f"max_size={found.max_size}"] == sorted(order, reverse=True)
    with pytest.raises(ArgumentError, match="min_size must be at most max_size"):
        override(config, ["max_size=600"])
    with pytest.raises(ArgumentError, match="optim holds several settings"):
        override(Recipe(), ["optim=3", "optim.lr=0.1"])
    with pytest.raises(ArgumentError, match="optim holds several settings"):
        override(Recipe(), ["optim.lr=0.1", "optim=3"])
    assert override(Recipe(), ["optim.lr=0.1", "name=x", "optim.lr=0.2"]).optim.lr == 0.2


@pytest.mark.parametrize(
    ("old", "new"), [("alone_share", "crops_only_share"), ("detector.weigh_by_score", "detector.score_weighting")]
)
def test_a_run_that_was_begun_under_an_old_name_is_resumed(tmp_path: Path, old: str, new: str) -> None:
    """And it is still told from a run with another value."""

    def recorded(name: str, value: float) -> dict[str, Any]:
        nested: Any = value
        for part in reversed(name.split(".")):
            nested = {part: nested}
        return {"recipe": nested}

    run = RunFolder(tmp_path)
    run.claim(recorded(old, 0.25), resume=False, may_differ=())
    (tmp_path / "checkpoints" / "step_1").mkdir(parents=True)
    with pytest.raises(TrainingError, match=rf"recipe\.{new}: 0.25 -> 0.5"):
        run.claim(recorded(new, 0.5), resume=True, may_differ=())
    assert run.claim(recorded(new, 0.25), resume=True, may_differ=()) == []
    assert run.claim(recorded(new, 0.25), resume=True, may_differ=()) == [], "the new name is recorded now"

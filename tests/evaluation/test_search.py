"""Person search: the original's numbers, a loop over everything, and what must not change a number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrainps.data.records import GalleryList, Query, SearchSet, as_boxes
from pretrainps.errors import ArgumentError
from pretrainps.evaluation import PROTOCOLS, ContextMatching, Detections, SearchProtocol, evaluate_search, protocol
from pretrainps.evaluation.search import SearchResult
from tests.evaluation.worlds import World, gallery_of, golden, golden_json, plain, random_world

SEEDS = st.integers(0, 10_000)


def search(world: World, settings: SearchProtocol, **more: Any) -> SearchResult:
    """Evaluate with what the protocol asks for."""
    if settings.query == "annotated_box":
        more.setdefault("query_embeddings", world.query_embeddings)
        if settings.context is not None:
            more.setdefault("query_detections", world.query_table)
    return evaluate_search(world.search_set, world.table, settings, **more)


def require_as_loops(world: World, settings: SearchProtocol) -> None:
    """Compare with the loops: who is skipped, each average precision, each hit."""
    ours = search(world, settings)
    context = settings.context
    theirs = plain().plain_search(
        world.search_set,
        world.results,
        gallery=settings.gallery,
        query_embeddings=world.query_embeddings,
        query_images=world.query_results if context is not None and settings.query == "annotated_box" else None,
        min_score=settings.min_score,
        same_camera=settings.same_camera == "keep",
        best_detection=settings.query == "best_detection",
        normalize=settings.normalize,
        once=settings.listed_twice == "once",
        repeat_lists=settings.full_repeats_lists,
        context=None if context is None else (context.k1, context.k2, context.update),
    )
    evaluated = [index for index, ap in enumerate(theirs.ap) if ap is not None]
    assert ours.evaluated.tolist() == evaluated
    assert ours.skipped == len(theirs.ap) - len(evaluated)
    np.testing.assert_allclose(ours.per_query_ap, [theirs.ap[index] for index in evaluated], rtol=0, atol=1e-9)
    assert ours.per_query_hits.tolist() == [theirs.hits[index] for index in evaluated]
    if evaluated:
        assert ours.mAP == pytest.approx(np.mean([theirs.ap[index] for index in evaluated]))


def test_the_originals_numbers() -> None:
    world = golden()
    (expected,) = (value for key, value in golden_json()["expected"].items() if key.startswith("search/"))
    result = search(world, replace(protocol("cuhk-sysu"), gallery=50))
    assert result.mAP == pytest.approx(expected["mAP"], abs=1e-9)
    assert [result.top1, result.top5, result.top10] == pytest.approx([expected[f"top{k}"] for k in (1, 5, 10)])
    np.testing.assert_allclose(result.per_query_ap, expected["per_query_ap"], atol=1e-9)
    assert result.per_query_hits.tolist() == expected["per_query_hits"]
    assert result.skipped == 0 and result.num_queries == 15


VARIANTS = [
    replace(PROTOCOLS["cuhk-sysu"], gallery=50),
    replace(PROTOCOLS["cuhk-sysu-cbgm"], gallery=50),
    replace(PROTOCOLS["cuhk-sysu"], gallery="full"),
    replace(PROTOCOLS["cuhk-sysu"], gallery="full", full_repeats_lists=True),
    replace(PROTOCOLS["cuhk-sysu"], gallery=50, min_score=0.01),
    PROTOCOLS["prw"],
    PROTOCOLS["prw-cbgm"],
    replace(PROTOCOLS["cuhk-sysu-alignps"], gallery=50),
    replace(PROTOCOLS["cuhk-sysu-pstr-cbgm"], gallery=50),
    PROTOCOLS["prw-pstr"],
    PROTOCOLS["prw-pstr-cbgm"],
]


@pytest.mark.parametrize("settings", VARIANTS, ids=lambda s: f"{s.name}-{s.gallery}-{s.min_score}")
@pytest.mark.parametrize("source", ["gallery", "gt"])
def test_as_loops_on_the_golden_set(settings: SearchProtocol, source: str) -> None:
    require_as_loops(golden(source), settings)


@settings(max_examples=40, deadline=None)
@given(
    seed=SEEDS,
    gallery=st.sampled_from([8, "full", "frames"]),
    same_camera=st.sampled_from(["keep", "drop"]),
    min_score=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    asking=st.sampled_from(["annotated_box", "best_detection"]),
    twice=st.sampled_from(["once", "twice"]),
    repeat=st.booleans(),
)
def test_as_loops_with_equal_similarities(
    seed: int, gallery: Any, same_camera: Any, min_score: float, asking: Any, twice: Any, repeat: bool
) -> None:
    """Coarse embeddings: most similarities occur more than once."""
    require_as_loops(
        random_world(seed, ties=True),
        SearchProtocol(
            name="any",
            gallery=gallery,
            same_camera=same_camera if gallery == "frames" else "keep",
            min_score=min_score,
            query=asking,
            listed_twice=twice if gallery == 8 else "once",
            full_repeats_lists=repeat and gallery == "full",
        ),
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=SEEDS,
    gallery=st.sampled_from([8, "frames"]),
    min_score=st.sampled_from([0.0, 0.5, 0.9]),
    asking=st.sampled_from(["annotated_box", "best_detection"]),
    k1=st.sampled_from([1, 3, 10, 30]),
    k2=st.integers(1, 4),
    update=st.sampled_from(["replace", "mean"]),
    normalize=st.booleans(),
)
def test_as_loops_with_context(
    seed: int, gallery: Any, min_score: float, asking: Any, k1: int, k2: int, update: Any, normalize: bool
) -> None:
    require_as_loops(
        random_world(seed),
        SearchProtocol(
            name="any",
            gallery=gallery,
            min_score=min_score,
            query=asking,
            normalize=normalize,
            context=ContextMatching(k1=k1, k2=k2, update=update),
        ),
    )


def permuted(world: World, order: np.ndarray) -> World:
    """The same with the gallery's images in another order."""
    back = np.argsort(order)
    sets = world.search_set
    return replace_world(
        world,
        SearchSet(
            gallery=gallery_of([sets.gallery.samples[index] for index in order]),
            queries=sets.queries,
            lists={
                size: [GalleryList(frames=back[entry.frames], boxes=entry.boxes) for entry in lists]
                for size, lists in sets.lists.items()
            },
        ),
        [world.results[index] for index in order],
    )


def replace_world(world: World, search_set: SearchSet, results: list[dict[str, Any]]) -> World:
    return World(
        search_set=search_set,
        results=results,
        query_embeddings=world.query_embeddings,
        query_results=world.query_results,
    )


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, gallery=st.sampled_from([8, "full", "frames"]))
def test_the_order_of_the_gallery_is_nothing(seed: int, gallery: Any) -> None:
    world, settings = random_world(seed), SearchProtocol(name="any", gallery=gallery)
    other = permuted(world, np.random.default_rng(seed).permutation(len(world.results)))
    before, after = search(world, settings), search(other, settings)
    np.testing.assert_allclose(after.per_query_ap, before.per_query_ap, atol=1e-12)
    assert after.per_query_hits.tolist() == before.per_query_hits.tolist()


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, gallery=st.sampled_from([8, "full", "frames"]))
def test_what_is_under_the_threshold_is_nothing(seed: int, gallery: Any) -> None:
    world, settings = random_world(seed), SearchProtocol(name="any", gallery=gallery)
    rng = np.random.default_rng(seed)
    noisy = [
        {
            "boxes": np.vstack([image["boxes"], [[0, 0, 50, 90]]]),
            "scores": np.r_[image["scores"], np.float32(0.4999)],
            "embeddings": np.vstack([image["embeddings"], rng.standard_normal((1, 8))]),
        }
        for image in world.results
    ]
    before, after = search(world, settings), search(replace_world(world, world.search_set, noisy), settings)
    np.testing.assert_allclose(after.per_query_ap, before.per_query_ap, atol=1e-12)
    assert after.per_query_hits.tolist() == before.per_query_hits.tolist()


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, gallery=st.sampled_from([8, "full", "frames"]))
def test_dissimilar_false_detections_never_help(seed: int, gallery: Any) -> None:
    """One far from everybody in each image, less similar to each query than anything else: only ties below could change."""
    world, settings = random_world(seed), SearchProtocol(name="any", gallery=gallery)
    wide = [np.hstack([image["embeddings"], np.zeros((len(image["embeddings"]), 1))]) for image in world.results]
    noisy = [
        {
            "boxes": np.vstack([image["boxes"], [[5000, 5000, 5050, 5090]]]),
            "scores": np.r_[image["scores"], 1.0],
            "embeddings": np.vstack([vectors, np.eye(9)[8:] * -5]),
        }
        for image, vectors in zip(world.results, wide, strict=True)
    ]
    asking = np.hstack([world.query_embeddings, np.ones((len(world.query_embeddings), 1), dtype=np.float32)])
    before = search(world, settings)
    after = search(replace_world(world, world.search_set, noisy), settings, query_embeddings=asking)
    assert after.evaluated.tolist() == before.evaluated.tolist()
    assert np.all(after.per_query_ap <= before.per_query_ap + 1e-12)
    assert after.per_query_hits.tolist() == before.per_query_hits.tolist()
    np.testing.assert_allclose(after.per_query_ap, before.per_query_ap, atol=1e-6)


def tiny(
    boxes: list[list[list[float]]], ids: list[list[int]], *, query: int = 0, cameras: list[int] | None = None
) -> SearchSet:
    """A gallery of hand-made images; the query is person 0 in the image `query`."""
    samples = [
        replace(
            random_world(0).search_set.gallery.samples[0],
            name=f"{index}.jpg",
            boxes=as_boxes(rows),
            ids=np.array(who, dtype=np.int64),
            camera=None if cameras is None else cameras[index],
        )
        for index, (rows, who) in enumerate(zip(boxes, ids, strict=True))
    ]
    asked = Query(sample=samples[query], box=as_boxes(boxes[query][0])[0], id=0)
    return SearchSet(gallery=gallery_of(samples), queries=[asked])


def found(boxes: list[list[float]], similarities: list[float]) -> dict[str, Any]:
    return {"boxes": as_boxes(boxes), "scores": np.ones(len(boxes)), "embeddings": np.array(similarities).reshape(-1, 1)}


PERSON = [10, 10, 50, 110]
ASK = [[1.0]]


def test_one_detection_stands_for_an_occurrence() -> None:
    """Two detections of the same person: the more similar one is right, the other wrong."""
    sets = tiny([[PERSON], [PERSON]], [[0], [0]])
    table = Detections.from_images([found([], []), found([PERSON, PERSON, [200, 0, 240, 90]], [0.5, 0.9, 0.7])])
    result = evaluate_search(sets, table, PROTOCOLS["frames"], query_embeddings=ASK, ranking=5)
    assert result.mAP == 1 and result.found.tolist() == [1]
    assert result.ranking is not None
    assert result.ranking.detections.tolist() == [[1, 2, 0, -1, -1]]
    assert result.ranking.correct.tolist() == [[True, False, False, False, False]]


def test_small_people_need_less_overlap() -> None:
    """10 x 20 pixels: 200 / (20 * 30) = 1/3 is enough; a tall person needs one half."""
    small, tall = [0, 0, 10, 20], [0, 0, 100, 200]
    for box, part in ((small, [0, 0, 10, 8]), (tall, [0, 0, 100, 80])):  # 0.4 of the box
        sets = tiny([[box], [box]], [[0], [0]])
        table = Detections.from_images([found([], []), found([part], [0.9])])
        result = evaluate_search(sets, table, PROTOCOLS["frames"], query_embeddings=ASK)
        assert result.mAP == (1 if box is small else 0)


def test_fractions_are_cut_off() -> None:
    """From 0.9 to 20.9 becomes 0 to 20: of a detection from 0 to 10, one half; rounded it would be 1 to 21."""
    sets = tiny([[PERSON], [[0.9, 0, 20.9, 600]]], [[0], [0]])
    table = Detections.from_images([found([], []), found([[0, 0, 10, 600]], [0.9])])
    assert evaluate_search(sets, table, PROTOCOLS["frames"], query_embeddings=ASK).mAP == 1


def test_an_occurrence_nobody_detected_costs_recall() -> None:
    sets = tiny([[PERSON], [PERSON], [PERSON]], [[0], [0], [0]])
    table = Detections.from_images([found([], []), found([PERSON], [0.9]), found([], [])])
    result = evaluate_search(sets, table, PROTOCOLS["frames"], query_embeddings=ASK)
    assert result.mAP == 0.5 and result.top1 == 1
    assert (result.found.tolist(), result.occurrences.tolist()) == ([1], [2])


def test_an_image_listed_twice_counts_twice_among_those_to_be_found() -> None:
    sets = tiny([[PERSON], [PERSON], [PERSON]], [[0], [0], [0]])
    entry = GalleryList(frames=np.array([1, 1]), boxes=as_boxes([PERSON, PERSON]))
    listed = SearchSet(gallery=sets.gallery, queries=sets.queries, lists={2: [entry]})
    table = Detections.from_images([found([], []), found([PERSON], [0.9]), found([], [])])
    once = evaluate_search(listed, table, SearchProtocol(name="x", gallery=2), query_embeddings=ASK)
    twice = evaluate_search(listed, table, SearchProtocol(name="x", gallery=2, listed_twice="twice"), query_embeddings=ASK)
    assert (once.mAP, twice.mAP) == (0.5, 1.0)


def test_the_first_box_of_somebody_twice_in_a_frame() -> None:
    other = [300, 10, 340, 110]
    sets = tiny([[PERSON], [PERSON, other]], [[0], [0, 0]])
    for box, expected in ((PERSON, 1.0), (other, 0.0)):
        table = Detections.from_images([found([], []), found([box], [0.9])])
        result = evaluate_search(sets, table, PROTOCOLS["frames"], query_embeddings=ASK)
        assert result.mAP == expected and result.occurrences.tolist() == [1]


def test_cross_camera_leaves_the_querys_camera_out() -> None:
    sets = tiny([[PERSON], [PERSON], [PERSON]], [[0], [0], [0]], cameras=[1, 1, 2])
    table = Detections.from_images([found([], []), found([PERSON], [0.9]), found([[200, 0, 240, 90]], [0.8])])
    every = evaluate_search(sets, table, PROTOCOLS["prw"], query_embeddings=ASK)
    cross = evaluate_search(sets, table, PROTOCOLS["prw-cross-camera"], query_embeddings=ASK)
    assert (every.mAP, every.top1, every.occurrences.tolist()) == (0.5, 1, [2])
    assert (cross.mAP, cross.top1, cross.occurrences.tolist()) == (0, 0, [1])


def test_listed_images_repeated_in_the_full_set_halve_a_perfect_search() -> None:
    sets = tiny([[PERSON], [PERSON]], [[0], [0]])
    entry = GalleryList(frames=np.array([1]), boxes=as_boxes([PERSON]))
    listed = SearchSet(gallery=sets.gallery, queries=sets.queries, lists={1: [entry]})
    table = Detections.from_images([found([], []), found([PERSON], [0.9])])
    full = replace(PROTOCOLS["cuhk-sysu"], gallery="full")
    assert evaluate_search(listed, table, full, query_embeddings=ASK).mAP == 1
    repeated = evaluate_search(listed, table, replace(full, full_repeats_lists=True), query_embeddings=ASK)
    assert repeated.mAP == 0.5 and repeated.top1 == 1


@pytest.mark.parametrize("others", [[[1]], [[-1]], [[]]])
def test_a_query_nobody_could_answer_is_skipped_and_counted(others: list[list[int]]) -> None:
    rows = [[PERSON] for who in others if who] or [[]]
    sets = tiny([[PERSON], *rows], [[0], *others])
    table = Detections.from_images([found([], []), found([PERSON], [0.9])])
    result = evaluate_search(sets, table, PROTOCOLS["frames"], query_embeddings=ASK)
    assert (result.mAP, result.top1, result.skipped, len(result.evaluated)) == (0, 0, 1, 0)
    assert result.without_match.tolist() == [0] and result.num_queries == 1


def test_nobody_detected_anywhere() -> None:
    sets = tiny([[PERSON], [PERSON]], [[0], [0]])
    table = Detections.from_images([found([], []), found([], [])])
    result = evaluate_search(sets, table, PROTOCOLS["frames"], query_embeddings=ASK, ranking=3)
    assert (result.mAP, result.top10, result.skipped) == (0, 0, 0)
    entry = GalleryList(frames=np.array([1]), boxes=as_boxes([PERSON]))
    listed = SearchSet(gallery=sets.gallery, queries=sets.queries, lists={1: [entry]})
    no_width = Detections.from_images([{"boxes": [], "scores": [], "embeddings": []}] * 2)
    for gallery in (1, "full", "frames"):
        assert evaluate_search(listed, no_width, SearchProtocol(name="x", gallery=gallery), query_embeddings=ASK).mAP == 0  # type: ignore[arg-type]
    asking = evaluate_search(sets, table, PROTOCOLS["prw-pstr"])
    assert asking.without_detection.tolist() == [0] and asking.mAP == 0


def test_ground_truth_as_detections() -> None:
    world = golden()
    sets = world.search_set
    with_boxes = golden("gt")
    table = Detections.of_ground_truth(sets.gallery, [image["embeddings"] for image in with_boxes.results])
    result = evaluate_search(sets, table, replace(PROTOCOLS["cuhk-sysu"], gallery=50), query_embeddings=world.query_embeddings)
    assert "annotated ones" in result.protocol
    assert np.array_equal(result.found, result.occurrences), "each of them is there"
    expected = search(with_boxes, replace(PROTOCOLS["cuhk-sysu"], gallery=50))
    assert result.mAP == expected.mAP and "annotated ones" not in expected.protocol


GALLERIES = "pretrainps.evaluation.galleries"


def test_many_queries_are_asked_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{GALLERIES}._HELD", 300)
    for how in (replace(PROTOCOLS["cuhk-sysu"], gallery=50), replace(PROTOCOLS["cuhk-sysu"], gallery="full"), PROTOCOLS["prw"]):
        require_as_loops(golden(), how)


@pytest.mark.parametrize("seed", range(12))
def test_short_lists_go_image_by_image(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real lists name one image in seventy; the tests' would count as long."""
    monkeypatch.setattr(f"{GALLERIES}._SPARSE", 0)
    monkeypatch.setattr(f"{GALLERIES}._IMAGES", 3)
    for twice in ("once", "twice"):
        require_as_loops(random_world(seed, ties=True), SearchProtocol(name="any", gallery=8, listed_twice=twice))  # type: ignore[arg-type]
    require_as_loops(random_world(seed), SearchProtocol(name="any", gallery=8, context=ContextMatching(k1=10, k2=3)))
    require_as_loops(golden(), replace(PROTOCOLS["cuhk-sysu"], gallery=50, min_score=0.1 * seed / 2))


def test_what_does_not_fit_is_refused() -> None:
    world = golden()
    sets, table, asking = world.search_set, world.table, world.query_embeddings
    cuhk = replace(PROTOCOLS["cuhk-sysu"], gallery=50)

    def refuses(match: str, *, settings: SearchProtocol = cuhk, table: Detections = table, **more: Any) -> None:
        with pytest.raises(ArgumentError, match=match):
            evaluate_search(sets, table, settings, **more)

    refuses(
        "detections in 39 images, but the gallery has 40",
        table=Detections.from_images(world.results[:-1]),
        query_embeddings=asking,
    )
    refuses("of size 100. There are 50", settings=PROTOCOLS["cuhk-sysu"], query_embeddings=asking)
    refuses("have 32 numbers, the gallery's embeddings 64", query_embeddings=asking[:, :32])
    refuses(r"shape \(14, 64\) for 15 queries", query_embeddings=asking[:-1])
    refuses("give query_embeddings")
    refuses("query 3 is not finite", query_embeddings=np.where(np.arange(15)[:, None] == 3, np.nan, asking))
    refuses("takes query embeddings from detections", settings=PROTOCOLS["prw-pstr"], query_embeddings=asking)
    refuses("give query_detections", settings=replace(PROTOCOLS["cuhk-sysu-cbgm"], gallery=50), query_embeddings=asking)
    refuses("40 images for 15 queries", query_embeddings=asking, query_detections=table)
    refuses(
        r"query 0 \(s117.jpg\) do not begin with the person",
        settings=replace(PROTOCOLS["cuhk-sysu-cbgm"], gallery=50),
        query_embeddings=asking,
        query_detections=Detections.from_images(world.query_results[1:] + world.query_results[:1]),
    )
    refuses("that of s101.jpg and 39 others", settings=PROTOCOLS["prw-cross-camera"], query_embeddings=asking)
    without = SearchSet(gallery=sets.gallery, queries=sets.queries)
    with pytest.raises(ArgumentError, match="toy comes without"):
        evaluate_search(without, table, cuhk, query_embeddings=asking)
    beyond = SearchSet(
        gallery=sets.gallery,
        queries=sets.queries[:1],
        lists={50: [GalleryList(frames=np.array([40]), boxes=as_boxes([PERSON]))]},
    )
    with pytest.raises(ArgumentError, match="query 0 names an image beyond"):
        evaluate_search(beyond, table, cuhk, query_embeddings=asking[:1])


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"gallery": "all"}, "'frames', 'full' or a list's size"),
        ({"gallery": 0}, "'frames', 'full' or a list's size"),
        ({"same_camera": "no"}, "'keep' or 'drop'"),
        ({"gallery": 50, "same_camera": "drop"}, "galleries of frames"),
        ({"gallery": "full", "context": ContextMatching(k1=3, k2=3)}, "not defined for the full set"),
        ({"listed_twice": "twice", "gallery": 50, "context": ContextMatching(k1=3, k2=3)}, "each image once"),
        ({"listed_twice": "twice"}, "is for lists"),
        ({"full_repeats_lists": True}, "belongs to gallery='full'"),
    ],
)
def test_protocols_that_cannot_be(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(ArgumentError, match=match):
        SearchProtocol(name="x", **fields)


def test_protocols_by_name() -> None:
    assert protocol("prw").words().startswith("prw: all gallery images but the query's own; detections of score 0.5 and above")
    assert "k1 = 30, k2 = 4" in protocol("prw-cbgm").words()
    with pytest.raises(ArgumentError, match=r"no protocol 'prv'\. There are cuhk-sysu"):
        protocol("prv")
    with pytest.raises(ArgumentError, match="at least 1"):
        ContextMatching(k1=0, k2=3)

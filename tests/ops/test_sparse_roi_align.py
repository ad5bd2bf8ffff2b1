"""RoIAlign as weighted sums of pixels equals torchvision's RoIAlign."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import roi_align

from pretrainps.ops.sparse_roi_align import RegionGrid, pixel_rows

edges = st.floats(-60, 400, width=32)


@given(
    st.lists(st.lists(st.tuples(edges, edges, edges, edges), max_size=4), min_size=1, max_size=3),
    st.sampled_from([(1, 1), (3, 5), (12, 9), (20, 1)]),
    st.sampled_from([1, 2, 3, 7, 14]),
    st.sampled_from([1, 2, 3]),
)
def test_equals_roi_align(boxes: list[list[tuple[float, ...]]], size: tuple[int, int], bins: int, sampling: int) -> None:
    """Boxes of any size and place, also upside down, outside the map, and none."""
    maps = torch.randn(len(boxes), 5, *size, generator=torch.Generator().manual_seed(0))
    tensors = [torch.tensor(each, dtype=torch.float32).reshape(-1, 4) for each in boxes]
    grid = RegionGrid.of(tensors, size, bins=bins, sampling=sampling, scale=1 / 16)
    wanted = roi_align(maps, tensors, bins, 1 / 16, sampling)
    cut = grid.pool_regions(pixel_rows(maps))
    torch.testing.assert_close(cut, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(grid.every_other().pool_regions(pixel_rows(maps)), wanted[:, :, ::2, ::2], rtol=1e-4, atol=1e-4)


def test_a_pointwise_convolution_commutes() -> None:
    maps = torch.randn(2, 8, 10, 12)
    boxes = [torch.tensor([[0.0, 0, 90, 60], [30, 40, 400, 300]]), torch.tensor([[5.0, 5, 6, 6]])]
    weight = torch.randn(6, 8)
    grid = RegionGrid.of(boxes, (10, 12), bins=7, sampling=2, scale=1 / 16)
    before = grid.pool_regions(pixel_rows(maps) @ weight.T)
    after = torch.einsum("oc,rchw->rohw", weight, roi_align(maps, boxes, 7, 1 / 16, 2))
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-4)


def test_rows_of_a_channels_last_map_cost_nothing() -> None:
    maps = torch.randn(2, 8, 3, 4).contiguous(memory_format=torch.channels_last)
    assert pixel_rows(maps).data_ptr() == maps.data_ptr()
    torch.testing.assert_close(pixel_rows(maps)[4 * 3 + 5], maps[1, :, 1, 1])

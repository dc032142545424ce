from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rec.modules.mask_net import FieldNorm, MaskBlock
from tests.modules.golden import fill, outcome, wave


def test_mask_block_by_hand() -> None:
    block = MaskBlock(2, 1, hidden_dim=1, aggregation_dim=1, use_ln=False)
    with torch.no_grad():
        block.mask[0].weight.fill_(2.0)
        block.mask[0].bias.fill_(-1.0)
        block.mask[2].weight.copy_(torch.tensor([[1.0], [3.0]]))
        block.mask[2].bias.copy_(torch.tensor([0.0, 1.0]))
        block.hidden[0].weight.copy_(torch.tensor([[1.0, -1.0]]))
        block.hidden[0].bias.fill_(0.5)
    # field 2: hidden relu(2 * 2 - 1) = 3, mask = [3, 10]; h = [5, 1]: masked [15, 10]; 15 - 10 + 0.5
    assert block(torch.tensor([[5.0, 1.0]]), torch.tensor([[2.0]])).tolist() == [[5.5]]
    # h = [1, 5]: masked [3, 50], below zero
    assert block(torch.tensor([[1.0, 5.0]]), torch.tensor([[2.0]])).tolist() == [[0.0]]


def test_aggregation_dim_goes_before_reduction_ratio() -> None:
    assert MaskBlock(8, 12, hidden_dim=4, reduction_ratio=2.0).mask[0].out_features == 16
    assert MaskBlock(8, 12, hidden_dim=4, reduction_ratio=2.0, aggregation_dim=5).mask[0].out_features == 5


def test_no_hidden_unit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^reduction_ratio 0.1 of 8 leaves no hidden unit"):
        MaskBlock(8, 8, hidden_dim=4, reduction_ratio=0.1)


def test_each_field_is_normed_by_itself_and_width_one_passes() -> None:
    norm = FieldNorm([2, 2, 1, 3])
    # (0, 2) and (10, 30) are -1, 1 up to eps; 7 passes; (1, 2, 3) is -1.2247, 0, 1.2247.
    out = norm(torch.tensor([[0.0, 2.0, 10.0, 30.0, 7.0, 1.0, 2.0, 3.0]]))
    want = torch.tensor([[-1.0, 1.0, -1.0, 1.0, 7.0, -1.224745, 0.0, 1.224745]])
    # eps 1e-5 on variances of 1 and 2/3.
    torch.testing.assert_close(out, want, rtol=2e-5, atol=0)


def test_equals_a_layer_norm_a_field() -> None:
    widths = [4, 4, 4, 1, 6, 4]
    norm = FieldNorm(widths).double()
    fill(norm)
    x = torch.randn(5, sum(widths), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    affine = [(w[i], b[i]) for w, b in zip(norm.weights, norm.biases, strict=True) for i in range(len(w))]
    pieces = []
    for part in x.split(widths, dim=1):
        if part.shape[1] > 1:
            weight, bias = affine.pop(0)
            part = nn.functional.layer_norm(part, part.shape[1:], weight, bias)
        pieces.append(part)
    torch.testing.assert_close(norm(x), torch.cat(pieces, dim=1))


class Net(nn.Module):
    """Norm and two blocks, as rec.models.mask_net arranges them."""

    def __init__(self, parallel: bool) -> None:
        super().__init__()
        self.parallel = parallel
        self.norm = FieldNorm([4, 4, 4])
        self.blocks = nn.ModuleList(
            MaskBlock(12 if parallel or i == 0 else 5, 12, hidden_dim=5, reduction_ratio=2) for i in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        if self.parallel:
            return torch.cat([block(h, x) for block in self.blocks], dim=1)
        for block in self.blocks:
            h = block(h, x)
        return h


# FuxiCTR 2.3 ParallelMaskNet and SerialMaskNet on four rows of three fields of width 4 (agreed within 1e-16).
FUXICTR = {
    True: [5.63965581887928, 3.336336657525773, -0.5489364274604572, 1.4737361793561612],
    False: [2.5226466144569244, 1.003094571255149, -0.30746569240095567, 0.5172971593747315],
}


@pytest.mark.parametrize("parallel", [True, False], ids=["parallel", "serial"])
def test_equals_fuxictr(parallel: bool) -> None:
    net = Net(parallel).double()
    fill(net)
    x = wave(4, 3, 4)
    out = net(x.flatten(1))
    out.square().sum().backward()
    assert outcome(out, x.grad) == pytest.approx(FUXICTR[parallel], rel=1e-9)

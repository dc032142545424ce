from __future__ import annotations

import torch
from torch import nn

from rec.modules.norm import BatchNorm, RMSNorm


def test_two_rows_train_as_pytorch_does() -> None:
    x = torch.randn(2, 3)
    ours, theirs = BatchNorm(3), nn.BatchNorm1d(3)
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.running_var, theirs.running_var)


def test_one_row_is_normalised_by_the_running_statistics_and_leaves_them() -> None:
    norm = BatchNorm(3)
    norm(torch.randn(8, 3))
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    x = torch.randn(1, 3)
    trained = norm(x)
    assert torch.equal(trained, norm.eval()(x))
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())


def test_one_row_gives_a_gradient() -> None:
    norm, x = BatchNorm(3), torch.randn(1, 3, requires_grad=True)
    norm(x).sum().backward()
    assert x.grad.abs().min() > 0
    assert norm.weight.grad is not None


def test_rms_norm_by_hand_and_in_float32() -> None:
    # mean of squares (9 + 16) / 2 = 12.5, root 3.5355339
    x = torch.tensor([[3.0, -4.0]])
    norm = RMSNorm(2)
    torch.testing.assert_close(norm(x), torch.tensor([[0.8485281, -1.1313708]]))
    assert norm(x.bfloat16()).dtype == torch.float32

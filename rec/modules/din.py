"""Target attention of Deep Interest Network over jagged sequences."""

# B rows, N steps of all rows, D embedding width
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rec.modules.linear import Linear
from rec.modules.mlp import MLP
from rec.ops.jagged import weighted_segment_sum
from rec.ops.target_linear import target_linear


class DINAttention(nn.Module):
    """Local activation unit: sum over the steps of a(q, k) k, a(q, k) = MLP([q, k, q - k, q * k]).

    Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018, Eq. 3. The weights
    are not normalised (no softmax), so that the size of the sum tells how strong the interest is. The
    MLP sees valid steps only: there is no padding, hence no mask, and Dice's statistics are of real steps.

    Args:
        width: D, of the query and of a step.
        hidden_units, dropout_ratio, activation, use_bn, bias, use_ln: of the MLP; a linear layer to one
            number follows. "Dice" is the paper's activation.
    """

    def __init__(
        self,
        width: int,
        *,
        hidden_units: Sequence[int],
        dropout_ratio: Sequence[float] = (),
        activation: str = "nn.ReLU",
        use_bn: bool = False,
        bias: bool = True,
        use_ln: bool = False,
    ) -> None:
        super().__init__()
        # One weight over the four columns, as in the paper, although the first layer is computed in parts.
        self.mlp = MLP(
            4 * width,
            hidden_units=hidden_units,
            dropout_ratio=dropout_ratio,
            activation=activation,
            use_bn=use_bn,
            bias=bias,
            use_ln=use_ln,
        )
        self.score = Linear(self.mlp.out_features, 1)

    def weights(self, query_BD: Tensor, steps_ND: Tensor, lengths_B: Tensor) -> Tensor:
        """Relevance of each step to the query of its row.

        Args:
            query_BD: [B, D].
            steps_ND: [sum L, D].
            lengths_B: steps of each row, [B].

        Returns:
            [sum L, 1]
        """
        layers = [*self.mlp.layers, self.score]
        first: Any = layers[0]  # of the MLP, or the score itself where there is no hidden layer
        hidden_NH = target_linear(query_BD, steps_ND, lengths_B, first.weight, first.bias)
        for layer in layers[1:]:
            hidden_NH = layer(hidden_NH)
        return hidden_NH

    def forward(self, query_BD: Tensor, steps_ND: Tensor, lengths_B: Tensor, keep_N1: Tensor | None = None) -> Tensor:
        """Sum of the steps by relevance.

        Args:
            query_BD: [B, D].
            steps_ND: [sum L, D].
            lengths_B: steps of each row, [B].
            keep_N1: factors of the weights, [sum L, 1]; 0 leaves a step out.

        Returns:
            [B, D]; 0 for a row without steps.
        """
        weights_N1 = self.weights(query_BD, steps_ND, lengths_B)
        if keep_N1 is not None:
            weights_N1 = weights_N1 * keep_N1
        # In fp32, as the steps: under autocast only the weights are not.
        return weighted_segment_sum(steps_ND, weights_N1, lengths_B)


class WindowedAttention(nn.Module):
    """The mean of a(q, k) k over the steps of each window of a row, a(q, k) = PReLU(MLP([k, q * k, q])).

    The windows follow each other from the first step on, or from the last one back; the mean is over the steps that
    there are. The target comes last. TorchEasyRec's MultiWindowDINEncoder, in which histories begin with the most
    recent step.

    Args:
        width: D, of the target and of a step.
        windows: length of each window, in steps.
        from_last: the first window holds the last steps.
        hidden_units, dropout_ratio, activation, use_bn, bias, use_ln: of the MLP; a linear layer to one number follows.
    """

    def __init__(
        self,
        width: int,
        *,
        windows: Sequence[int],
        from_last: bool = False,
        hidden_units: Sequence[int],
        dropout_ratio: Sequence[float] = (),
        activation: str = "nn.ReLU",
        use_bn: bool = False,
        bias: bool = True,
        use_ln: bool = False,
    ) -> None:
        super().__init__()
        self.windows, self.from_last = list(windows), from_last
        self.mlp = MLP(
            3 * width,
            hidden_units=hidden_units,
            dropout_ratio=dropout_ratio,
            activation=activation,
            use_bn=use_bn,
            bias=bias,
            use_ln=use_ln,
        )
        self.score = nn.Sequential(Linear(self.mlp.out_features, 1), nn.PReLU())
        self.out_features = width * (len(self.windows) + 1)

    def forward(self, query_BD: Tensor, steps_ND: Tensor, lengths_B: Tensor) -> Tensor:
        """[B, D], [sum L, D], [B] -> [B, (windows + 1) D]; 0 for a window without steps."""
        layers = [*self.mlp.layers, *self.score]
        first: Any = layers[0]
        of_step, of_product, of_query = first.weight.chunk(3, dim=1)
        four = torch.cat([of_query, of_step, torch.zeros_like(of_step), of_product], dim=1)
        weights = target_linear(query_BD, steps_ND, lengths_B, four, first.bias)
        for layer in layers[1:]:
            weights = layer(weights)
        # Steps of each window of each row, and of what is left of it: neighbours, so a jagged tensor too.
        counts, left_B = [], lengths_B
        for window in self.windows:
            counts.append(left_B.clamp(max=window))
            left_B = left_B - counts[-1]
        counts_BW = torch.stack([*counts, left_B], dim=1)
        rows, windows = lengths_B.shape[0], len(self.windows)
        in_order_BW = counts_BW.flip(1) if self.from_last else counts_BW
        sums_BWD = weighted_segment_sum(steps_ND, weights, in_order_BW.flatten()).view(
            rows, windows + 1, steps_ND.shape[1]
        )
        sums_BWD = (sums_BWD.flip(1) if self.from_last else sums_BWD)[:, :windows]
        means_BWD = sums_BWD / counts_BW[:, :windows].clamp(min=1).unsqueeze(2)
        return torch.cat([means_BWD.flatten(1), query_BD], dim=1)

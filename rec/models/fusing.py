"""The two cross networks of DCNv3 from its message: with logits in DCNv3 itself, without in a branch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from rec.config.errors import ConfigError
from rec.models.base import fields_of
from rec.modules.fusing_cross import chunked_heads
from rec.protos.models import dcn_v3_pb2 as pb

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShape


class HeadsOfFields:
    """How the fields of a group are cut into heads.

    Args:
        config: the message.
        group: a DEEP group of features of equal width, a multiple of twice the heads.

    Attributes:
        width: D, columns of a head.
        num_heads: H.
    """

    def __init__(self, config: pb.DCNV3, group: GroupShape) -> None:
        self.num_fields, self.field_width = fields_of(group, config)
        self.num_heads = config.num_heads
        if self.num_heads < 1 or self.field_width % (2 * self.num_heads):
            raise ConfigError(
                f'group "{group.name}": features of width {self.field_width} cannot be cut into '
                f"{self.num_heads} heads of even width",
                config,
                "num_heads" if config.HasField("num_heads") else None,
                hint=f"make embedding_dim a multiple of {2 * max(1, self.num_heads)}",
            )
        self.width = group.width // self.num_heads

    def __call__(self, x: Tensor) -> Tensor:
        """[B, F * width of a field] -> float32 [B, H, D]."""
        return chunked_heads(x.float().reshape(-1, self.num_fields, self.field_width), self.num_heads)


def network_settings(config: pb.DCNV3) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keyword arguments of `FusingCrossLayers`: of the deep network, and of the shallow one."""
    shared: dict[str, Any] = {
        "num_heads": config.num_heads,
        "use_ln": config.use_ln,
        "use_bn": config.use_bn,
        "bias_init_max": config.bias_init_max,
    }
    deep = {"exponential": True, "cross_num": config.deep_cross_num, "dropout_ratio": config.deep_dropout_ratio}
    shallow = {
        "exponential": False,
        "cross_num": config.shallow_cross_num,
        "dropout_ratio": config.shallow_dropout_ratio,
    }
    return shared | deep, shared | shallow

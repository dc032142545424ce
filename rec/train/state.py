"""Which tensors of a network a checkpoint holds, by name.

`model/<name>`     dense parameters and buffers
`tables.<table>`, `tables.<table>.<state>`   tables and the state of their optimizers
`optimizer/<parameter>/<key>`, `ema/<parameter, buffer or table>`
`rank<r>/rng/...`, `rank<r>/metrics/...`, `rank<r>/tasks/...`   what each process has for itself
"""

from __future__ import annotations

import fnmatch
import logging
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rec.train import ranks
from rec.train.checkpoint import Checkpoint, differences, refuse

if TYPE_CHECKING:
    from rec.network import Network

log = logging.getLogger(__name__)

Shape = tuple[int, ...]


def dense_parameters(network: Network) -> dict[str, nn.Parameter]:
    """Trainable parameters outside the tables, by name: what the dense optimizer trains."""
    model = {f"model.{n}": p for n, p in network.model.named_parameters()}
    found = {f"embedding.{n}": p for n, p in _dense_of(network.embedding).items() if isinstance(p, nn.Parameter)}
    return {n: p for n, p in (found | model).items() if p.requires_grad}


def dense_tensors(network: Network) -> dict[str, Tensor]:
    """Parameters (frozen ones too) and buffers outside the tables, by name."""
    model = {f"model.{n}": t for n, t in network.model.state_dict(keep_vars=True).items()}
    found = {f"embedding.{n}": t for n, t in _dense_of(network.embedding).items()}
    return {n: t.detach() for n, t in (found | model).items()}


def _dense_of(embedding: nn.Module) -> Mapping[str, Tensor]:
    """What an EmbeddingGroup has beside its tables: dense embeddings and sequence encoders."""
    found: dict[str, Tensor] = {}
    for name, part in embedding.named_children():
        if name != "tables":
            found |= part.state_dict(prefix=f"{name}.", keep_vars=True)
    return found


def buffers(network: Network) -> list[Tensor]:
    """Running statistics and the like, which each process has from its own rows."""
    parts = [part for name, part in network.embedding.named_children() if name != "tables"]
    return [buffer for part in [*parts, network.model] for buffer in part.buffers()]


def table_tensors(network: Network) -> dict[str, Any]:
    """Tables, and the state of their optimizers where they have some; plain, or sharded over processes."""
    embedding: Any = network.embedding
    return embedding.export_weights() if embedding.backend == "plain" else embedding.tables_state()


def averaged_tensors(network: Network, *, tables: bool) -> dict[str, Tensor]:
    """What a moving average covers, by name: `dense_tensors`, and on one process the tables if asked for."""
    found = dense_tensors(network)
    if tables:
        found |= {n: t for n, t in table_tensors(network).items() if not is_table_state(n)}
    return found


def network_tensors(network: Network) -> dict[str, Any]:
    """Everything of the network that a checkpoint holds, by its name there."""
    return {
        **{f"model/{n}": t for n, t in dense_tensors(network).items()},
        **table_tensors(network),
    }


def shapes_of(tensors: Mapping[str, Any]) -> dict[str, Shape]:
    """Global shape of each tensor, those that only other ranks hold included. A collective call."""
    shapes: dict[str, Shape] = {}
    for known in ranks.gather({n: tuple(t.size()) for n, t in tensors.items()}):
        shapes |= known
    return shapes


def is_of_network(name: str) -> bool:
    """Whether a name in a checkpoint is of the network: neither optimizer, averages nor a rank's own."""
    return name.startswith(("model/", "tables."))


def load_network(network: Network, checkpoint: Checkpoint, *, weights_only: bool = True, ema: bool = False) -> None:
    """Fill a network from a checkpoint, strictly.

    Args:
        network: of the fused or of the plain backend.
        checkpoint: to read; verify it first.
        weights_only: leave out the state of the tables' optimizers: to evaluate, predict and export.
        ema: take the averages instead of the weights, where the checkpoint has them.

    Raises:
        CheckpointError: listing names that are missing, unexpected or of another shape.
    """
    wanted = network_tensors(network)
    found = {n: s for n, s in checkpoint.shapes.items() if is_of_network(n)}
    if weights_only:
        wanted = {n: t for n, t in wanted.items() if not is_table_state(n)}
        found = {n: s for n, s in found.items() if not is_table_state(n)}
    refuse(
        f"checkpoint {checkpoint.path}",
        differences(shapes_of(wanted), found),
        "Use the config that it was trained with (its pipeline.config is in the checkpoint), or start from it with "
        "train_config.fine_tune_checkpoint and fine_tune_ckpt_param_map.",
    )
    checkpoint.load(wanted)
    if ema:
        averages = {f"ema/{_plain(n)}": t for n, t in wanted.items()}
        checkpoint.load({n: t for n, t in averages.items() if n in checkpoint.shapes})


def is_table_state(name: str) -> bool:
    """Whether a name in a checkpoint is the state of a table's optimizer, not a weight."""
    return name.startswith("tables.") and "." in name.removeprefix("tables.")


def rank_tensors(rank: int, kept: Mapping[str, Mapping[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
    """Random number states of a process and what else it keeps, by name.

    Args:
        rank: of the process.
        kept: "metrics": the state of its train metrics; "tasks": what its tasks remember.
        device: where its network is.
    """
    tensors = {f"rank{rank}/rng/cpu": torch.get_rng_state()}
    if device.type == "cuda":
        tensors[f"rank{rank}/rng/cuda"] = torch.cuda.get_rng_state(device)
    return tensors | {f"rank{rank}/{what}/{n}": t for what, state in kept.items() for n, t in state.items()}


def load_rank(checkpoint: Checkpoint, rank: int, device: torch.device) -> dict[str, dict[str, Tensor]]:
    """Restore this process's random numbers; returns what else `rank_tensors` took, empty where it had none."""
    own = checkpoint.read(prefix=f"rank{rank}/")
    if not own:
        log.warning("checkpoint %s has no state of rank %d: its dropout starts anew", checkpoint.path, rank)
        return {"metrics": {}, "tasks": {}}
    torch.set_rng_state(own["rng/cpu"])
    if device.type == "cuda" and "rng/cuda" in own:
        torch.cuda.set_rng_state(own["rng/cuda"], device)
    return {
        what: {n.removeprefix(f"{what}/"): t for n, t in own.items() if n.startswith(f"{what}/")}
        for what in ("metrics", "tasks")
    }


def seed_all(seed: int, *, rank: int = 0) -> None:
    """Seed initial weights (same on every rank: before building) or dropout (own to each: after)."""
    random.seed(seed + rank)
    torch.manual_seed(seed + rank)


class ParamMap:
    """`fine_tune_ckpt_param_map`: which entry of another checkpoint fills which of this network.

    Lines `new old`. Both may end in `*`, which then stands for the same rest of the name. `new -`
    (with `*` anywhere) keeps the initial values. The first line that matches counts; what matches no
    line is taken by its own name.

    Args:
        text: the lines; `#` starts a comment.
    """

    def __init__(self, text: str) -> None:
        self.lines: list[tuple[str, str]] = []
        for number, raw in enumerate(text.splitlines(), 1):
            line = raw.split("#")[0].split()
            if not line:
                continue
            if len(line) != 2 or (line[1] != "-" and line[0].endswith("*") != line[1].endswith("*")):
                raise ValueError(f"line {number} is {raw.strip()!r}, expected 'new old', 'new* old*' or 'new -'")
            self.lines.append((line[0], line[1]))

    def source(self, name: str) -> str | None:
        """The name in the other checkpoint, None to keep the initial values."""
        for new, old in self.lines:
            if old == "-":
                if fnmatch.fnmatchcase(name, new):
                    return None
            elif new == name:
                return old
            elif new.endswith("*") and name.startswith(new[:-1]):
                return old[:-1] + name[len(new) - 1 :]
        return name

    def unused(self, names: list[str]) -> list[str]:
        """Lines that match none of the names."""
        return [f"{new} {old}" for new, old in self.lines if not any(fnmatch.fnmatchcase(n, new) for n in names)]


def fine_tune(network: Network, checkpoint: Checkpoint, param_map: ParamMap) -> None:
    """Start from the weights of another training: no optimizer state, step 0.

    Raises:
        CheckpointError: for weights that are not in the checkpoint or have another shape there, unless a
            line of the map says `-` for them.
    """
    mine = {_plain(n): n for n in network_tensors(network) if not is_table_state(n)}
    theirs = {_plain(n): n for n in checkpoint.shapes if is_of_network(n) and not is_table_state(n)}
    tensors = network_tensors(network)
    sources = {n: param_map.source(n) for n in mine}
    shapes = shapes_of(tensors)
    wanted = {source: shapes[mine[n]] for n, source in sources.items() if source is not None}
    diff = differences(wanted, {n: checkpoint.shapes[full] for n, full in theirs.items()})
    unexpected = diff.pop("unexpected")
    refuse(
        f"fine_tune_checkpoint {checkpoint.path}",
        diff,
        "Map names with fine_tune_ckpt_param_map (lines 'new old'), or keep initial values with 'new -'.",
    )
    if unexpected:
        log.warning(
            "fine-tune: %d entries of the checkpoint are not used: %s", len(unexpected), ", ".join(unexpected[:10])
        )
    if idle := param_map.unused(list(mine)):
        log.warning("fine_tune_ckpt_param_map: these lines match nothing: %s", "; ".join(idle))
    by_source: dict[str, list[str]] = {}
    for n, source in sources.items():
        if source is not None:
            by_source.setdefault(source, []).append(n)
    for round_ in range(max((len(v) for v in by_source.values()), default=0)):  # one entry may fill several
        checkpoint.load({theirs[s]: tensors[mine[n[round_]]] for s, n in by_source.items() if len(n) > round_})
    kept = [n for n, source in sources.items() if source is None]
    log.info(
        "fine-tune from %s: %d tensors taken, %d keep their initial values",
        checkpoint.path,
        len(mine) - len(kept),
        len(kept),
    )


def _plain(name: str) -> str:
    """As users write it: `model/model.mlp.weight` -> `model.mlp.weight`; `tables.user_emb` stays."""
    return name.removeprefix("model/")

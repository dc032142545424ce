"""The only place where parts meet: a config -> encoder, loaders, network, tasks.

Loaders are made first and import no torch, so that reader workers already decode while torch loads.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from rec.config.errors import ConfigError, DataError
from rec.config.load import Loaded
from rec.config.registry import oneof
from rec.config.towers import towers_of
from rec.data.build_candidates import Retrieval
from rec.data.build_tree import TreeIndex
from rec.data.encoder import Encoder
from rec.data.loader import Loader
from rec.data.reader import Sampled
from rec.features import Feature, build_features
from rec.world import World

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from rec.network import Network
    from rec.protos import pipeline_pb2
    from rec.tasks import Task


log = logging.getLogger(__name__)


@dataclass
class Job:
    """One config on one process: its parts, each built when it is first asked for."""

    loaded: Loaded
    world: World
    device_name: str = "auto"

    @property
    def config(self) -> pipeline_pb2.EasyRecConfig:
        return self.loaded.config

    @property
    def model_dir(self) -> Path:
        return Path(self.config.model_dir)

    @cached_property
    def features(self) -> list[Feature]:
        return build_features(self.config)

    @cached_property
    def encoder(self) -> Encoder:
        encoder = Encoder.from_config(self.config)
        for note in encoder.notes():
            log.warning("%s", note)
        return encoder

    @cached_property
    def retrieval(self) -> Retrieval | None:
        """Where a retrieval model's negatives come from; None for any other model."""
        return Retrieval(self.config, self.features) if towers_of(self.config.model_config) is not None else None

    @cached_property
    def tree(self) -> TreeIndex | None:
        """The tree of a tree-based model; None for any other."""
        return TreeIndex(self.config, self.features) if self.config.data_config.HasField("tdm_sampler") else None

    def train_loader(self) -> Loader:
        """Batches to learn from: shuffled if the config says so, spread over the processes."""
        data, train = self.config.data_config, self.config.train_config
        sampled = self.retrieval or self.tree
        return Loader(
            self.encoder,
            self.config.train_input_path,
            data,
            batch_size=data.batch_size,
            shuffle=data.shuffle,
            seed=data.shuffle_seed if data.HasField("shuffle_seed") else train.seed,
            rank=self.world.rank,
            world=self.world.size,
            drop_remainder=data.drop_remainder,
            mask_prob=data.sample_mask_prob,
            candidates=sampled.training() if sampled is not None else None,
        )

    def eval_loader(self, path: str) -> Loader:
        """Batches to measure on: every row once, in the order of the files."""
        return self._in_order(self.encoder, path, candidates=self._measured_against)

    @property
    def _measured_against(self) -> Sampled | None:
        """Candidates of a retrieval model's evaluation."""
        sampled = self.retrieval or self.tree
        return sampled.evaluation() if sampled is not None else None

    def sample_loader(self) -> Loader | None:
        """Training rows to measure on: `eval_config.train_rows` of them, evenly spaced; None without."""
        rows = self.config.eval_config.train_rows
        if not rows:
            return None
        path = self.config.train_input_path
        return self._in_order(self.encoder, path, sample=rows, candidates=self._measured_against)

    def predict_loader(self, path: str, *, encoder: Encoder | None = None) -> Loader:
        """Batches to score: no labels needed, the original columns kept.

        Args:
            path: what is read.
            encoder: of an export; without one that of the config.
        """
        return self._in_order(encoder or Encoder.from_config(self.config, with_labels=False), path, keep_rows=True)

    def _in_order(
        self,
        encoder: Encoder,
        path: str,
        *,
        keep_rows: bool = False,
        sample: int = 0,
        candidates: Sampled | None = None,
    ) -> Loader:
        data = self.config.data_config
        return Loader(
            encoder,
            path,
            data,
            batch_size=data.eval_batch_size or data.batch_size,
            rank=self.world.rank,
            world=self.world.size,
            keep_rows=keep_rows,
            sample=sample,
            num_workers=0 if sample else None,  # read once: not worth a process
            candidates=candidates,
        )

    def rows(self, path: str, count: int) -> pa.RecordBatch:
        """The first rows of a path as they lie there, with the columns that features and labels need."""
        loader = Loader(self.encoder, path, self.config.data_config, batch_size=count, num_workers=0, keep_rows=True)
        batch = next(iter(loader.epoch(0)), None)
        if batch is None or batch.rows is None:
            raise DataError("no rows", file=path)
        return batch.rows

    @cached_property
    def device(self) -> torch.device:
        import torch

        if self.device_name == "cpu" or (self.device_name == "auto" and not torch.cuda.is_available()):
            return torch.device("cpu")
        if not torch.cuda.is_available():
            raise ConfigError("--device cuda, but torch sees no GPU", hint="use --device cpu, or install the GPU build")
        device = torch.device("cuda", self.world.local_rank)
        torch.cuda.set_device(device)
        return device

    def join_world(self) -> None:
        """Joins the process group that torchrun announced; nothing to do for one process."""
        if not self.world.launched:
            return
        import torch.distributed as dist

        if not dist.is_initialized():
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")

    def network(self, *, backend: str = "fused") -> Network:
        """Embedding tables and model, initialised from train_config.seed."""
        import torch

        from rec.embedding import EmbeddingGroup
        from rec.models import MODELS
        from rec.network import Network

        config = self.config
        self.join_world()
        torch.manual_seed(config.train_config.seed)
        embedding = EmbeddingGroup(
            self.features,
            config.model_config,
            backend=backend,
            sparse_optimizer=config.train_config.sparse_optimizer,
            constraints=config.train_config.global_embedding_constraints,
            seed=config.train_config.seed,
            device=self.device,
        )
        model = MODELS.build(
            oneof(config.model_config, "model"), embedding.shapes, num_class=config.model_config.num_class
        )
        return Network(embedding, model.to(self.device))

    def tasks(self) -> list[Task]:
        from rec.tasks import build_tasks

        return build_tasks(self.config)

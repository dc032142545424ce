"""The training loop: read, step, and at times log, save and evaluate."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rec.config.errors import ConfigError, DataError
from rec.tasks import Evaluation, Measured, TrainMetrics
from rec.train import ranks, state
from rec.train.checkpoint import Checkpoint, Checkpointer, find_checkpoint
from rec.train.evaluate import evaluate
from rec.train.goals import build_goal, build_patience
from rec.train.history import History, Record, as_json, describe
from rec.train.optimizers import DenseOptimizers
from rec.train.plan import Plan
from rec.train.prefetch import steps_of, to_device
from rec.train.progress import Progress
from rec.train.run import Run
from rec.train.schedules import build_schedule
from rec.train.settings import (
    allow_tf32,
    build_ema,
    config_files,
    learning_rate_scale,
    read_param_map,
    warn_of_dead,
    warn_of_idle,
    warn_of_warmup,
)
from rec.train.step import StepResult, TrainStep, not_finite
from rec.train.summaries import Profiler, Summaries

if TYPE_CHECKING:
    from rec.data.batch import Batch
    from rec.data.loader import Loader
    from rec.network import Network
    from rec.protos.pipeline_pb2 import EasyRecConfig
    from rec.tasks import Task

log = logging.getLogger(__name__)


class Trainer:
    """Trains a network as a config says, and goes on where an earlier run of the same `model_dir` ended.

    Args:
        network: look-up and model, on `device`, built after `seed_all(seed)`.
        tasks: losses and metrics.
        config: the resolved pipeline config.
        model_dir: gets `checkpoints/`, `metrics.jsonl`, `tensorboard/`, `profile/`.
        train_loader: rows to train on; None to evaluate only.
        eval_loader: rows to evaluate on while training.
        test_loader: rows to evaluate on once, at the end.
        sample_loader: training rows to evaluate on beside those of eval_loader.
        device: where the network is.
        assumed_steps_per_epoch: for schedules, where there is no train_loader (a check without data).
    """

    def __init__(
        self,
        network: Network,
        tasks: Sequence[Task],
        config: EasyRecConfig,
        *,
        model_dir: str | Path,
        train_loader: Loader | None = None,
        eval_loader: Loader | None = None,
        test_loader: Loader | None = None,
        sample_loader: Loader | None = None,
        device: torch.device | str = "cpu",
        assumed_steps_per_epoch: int | None = None,
    ) -> None:
        self.network, self.tasks, self.config = network, list(tasks), config
        self.model_dir = Path(model_dir)
        self.loaders = {"train": train_loader, "eval": eval_loader, "test": test_loader}
        self.sample_loader = sample_loader
        self._sample: list[Batch] = []
        self.device = torch.device(device)
        tc = self.train_config = config.train_config
        self.rank = ranks.rank()
        self.plan = Plan.of(tc)
        horizon = self.plan.horizon(self._steps_per_epoch() or assumed_steps_per_epoch)
        scale = learning_rate_scale(tc, ranks.world())
        self.optimizers = DenseOptimizers(
            state.dense_parameters(network), tc.dense_optimizer, horizon=horizon, scale=scale
        )
        sparse = tc.sparse_optimizer
        which = sparse.WhichOneof("optimizer")
        base = getattr(sparse, which).lr if which else 0.0
        self.sparse_lr = build_schedule(sparse, base=base, horizon=horizon, scale=scale)
        self.step_fn = TrainStep(network, self.tasks, self.optimizers, config=tc, device=self.device)
        self.ema = build_ema(tc, network)
        self.train_metrics = TrainMetrics(self.tasks)
        self.run = Run(
            network,
            self.optimizers,
            self.train_metrics,
            ema=self.ema,
            scaler=self.step_fn.scaler,
            device=self.device,
        )
        metrics = Evaluation(self.tasks).metrics
        self.goal = build_goal(config, metrics)
        self.patience = build_patience(config, metrics)
        self.checkpointer = Checkpointer(self.model_dir / "checkpoints", keep=tc.keep_checkpoint_max, rank=self.rank)
        self.history = History(self.model_dir / "metrics.jsonl" if self.rank == 0 else None)
        self.summaries = Summaries(tc, self.model_dir / "tensorboard" if self.rank == 0 else None)
        self.horizon = horizon
        self._sparse_rate = math.nan
        self._first_step = 0
        self._lr_factor = 1.0

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.run.step

    # ---- the loop -------------------------------------------------------------------------------

    def train(self) -> dict[str, float]:
        """Train to the end, save and evaluate as configured; returns the last metrics, test ones as `test_<name>`."""
        if self.loaders["train"] is None:
            raise ValueError("a Trainer without a train_loader can only evaluate")
        if self.patience is not None and self.loaders["eval"] is None:
            tc = self.train_config
            raise ConfigError(
                "early_stopping has nothing to look at", tc, "early_stopping", hint="give eval_input_path, or drop it"
            )
        allow_tf32(self.train_config)
        warn_of_idle(self.train_config)
        if self.rank == 0:
            warn_of_warmup(self.config, self.horizon.steps)
        resumed = self._start()
        self._reduce_lr()
        began = time.perf_counter() - self.run.seconds
        done = self._is_done()
        if done:
            log.info(
                "the training in %s is finished (step %d): it is evaluated again, nothing is trained. "
                "Give another model_dir to start anew, or raise num_epochs or num_steps to go on.",
                self.model_dir,
                self.step,
            )
        self._first_step = self.step
        progress = Progress(
            total_steps=self.horizon.steps,
            epochs=self.plan.num_epochs,
            start_step=self.step,
            show=self.rank == 0 and not done,
        )
        profiler = Profiler(self.model_dir / "profile" if self.train_config.is_profiling and self.rank == 0 else None)
        self.network.train()
        last: Record | None = None
        if resumed and resumed.info.get("evaluate") and self._missing("eval"):
            last = self._evaluate_and_record("eval")  # killed between saving and evaluating
            done = done or self._is_done()
        try:
            while not done:
                for batches, ended in self._epoch():
                    self._one_step(batches, progress, ended=ended)
                    profiler.step()
                    self.run.seconds = time.perf_counter() - began
                    if self._save_if_due(ended):
                        progress.pause()
                        last = self._evaluate_if_due(ended) or last
                        progress.pause()
                        done = self._is_done()
                        if done:
                            break
                done = done or self._is_done()
        finally:
            profiler.close()
            progress.close()
            self.summaries.flush()
        return self._finish(last)

    def _epoch(self) -> Iterator[tuple[list[Batch], bool]]:
        loader = self.loaders["train"]
        assert loader is not None
        batches = loader.epoch(self.run.epoch, self.run.position)
        first = self.run.position is None
        empty = True
        for group, ended in steps_of(to_device(batches, self.device), self.plan.accumulate):
            empty = False
            yield group, ended
        if empty and first:
            raise DataError("the training data has no rows", file=self.config.train_input_path)
        if empty:  # saved at what turned out to be the last row
            self.run.epoch, self.run.position = self.run.epoch + 1, None

    def _one_step(self, batches: list[Batch], progress: Progress, *, ended: bool) -> None:
        self.optimizers.set_lr(self.step, self.run.epoch, factor=self._lr_factor)
        rate = self.sparse_lr(self.step, self.run.epoch) * self._lr_factor
        if rate != self._sparse_rate:
            embedding: Any = self.network.embedding
            embedding.set_lr(rate)
            self._sparse_rate = rate
        result = self.step_fn(batches, step=self.step + 1)
        if self.step == self._first_step and not result.skipped and self.rank == 0:
            warn_of_dead(self.optimizers.params)
        if self.ema is not None and not result.skipped:
            self.ema.update(self.step + 1)
        for batch, predictions in result.predictions:
            self.train_metrics.update(predictions, batch)
        self.train_metrics.step()
        epoch = self.run.epoch
        self.run.advance(None if result.skipped else result.loss, batches[-1].position, ended=ended)
        progress.advance(sum(b.size for b in batches if not b.filler) * ranks.world())
        every = self.train_config.log_step_count_steps
        if every and self.step % every == 0:
            self._log(result, progress, epoch)

    # ---- at times -------------------------------------------------------------------------------

    def _log(self, result: StepResult, progress: Progress, epoch: int) -> None:
        values = {"loss": self._mean_loss()} | self.train_metrics.compute()
        rates = self.optimizers.learning_rates()
        progress.report(epoch, values | {"lr": next(iter(rates.values()), self._sparse_rate)})
        self.summaries.scalars(self.step, values, prefix="train")
        if result.norm is not None:
            self.summaries.scalars(self.step, {"gradient_norm": float(result.norm)}, prefix="train")
        self.summaries.learning_rates(self.step, rates | {"sparse": self._sparse_rate})
        self.summaries.parameters(self.step, self.optimizers.params)

    def _mean_loss(self) -> float:
        """Mean loss of the epoch so far; raises when it is not finite, which on a GPU no step looked at."""
        mean = self.run.mean_loss()
        if not math.isfinite(mean):
            raise not_finite(self.step, {"loss": mean}, within=self.train_config.log_step_count_steps)
        return mean

    def _save_if_due(self, ended: bool) -> bool:
        if not self.plan.saves(self.step, epochs=self.run.epoch, ended=ended):
            return False
        self._save(evaluate=self.plan.evaluates(self.step, epochs=self.run.epoch, ended=ended))
        return True

    def _evaluate_if_due(self, ended: bool) -> Record | None:
        if self.loaders["eval"] is None or not self.plan.evaluates(self.step, epochs=self.run.epoch, ended=ended):
            return None
        return self._evaluate_and_record("eval")

    def _evaluate_and_record(self, split: str) -> Record | None:
        loader = self.loaders[split]
        if loader is None:
            return None
        measured = self._evaluate(loader)
        metrics, rows = measured.values, measured.rows
        train = {"loss": self._mean_loss()} | self.train_metrics.compute() if split == "eval" else None
        record = Record(
            self.step,
            self.run.epochs_begun,
            self.run.seconds,
            rows,
            metrics,
            split,
            train,
            as_json(measured.histograms),
        )
        if split == "eval" and self.sample_loader is not None:
            record = self._with_gap(record, self.sample_loader)
        self.history.add(record)
        if split == "eval":
            best = self.best_step()
            self.checkpointer.prune([] if best is None else [best])
            self._reduce_lr()
        self.summaries.scalars(self.step, metrics, prefix=split)
        self.summaries.histograms(self.step, measured.histograms, prefix=split)
        self.summaries.flush()
        if self.rank == 0:
            log.info("%s at step %d (%d rows): %s", split, self.step, rows, describe(metrics))
        return record

    def _with_gap(self, record: Record, loader: Loader) -> Record:
        """The record with the metrics of a sample of the training rows, and how much they exceed its own."""
        if not self._sample:
            self._sample = list(loader.epoch(0))
        values = self._measure(self._sample).values
        gap = {name: value - record.metrics[name] for name, value in values.items() if name in record.metrics}
        self.summaries.scalars(self.step, values, prefix="train_rows")
        self.summaries.scalars(self.step, gap, prefix="gap")
        return replace(record, train_rows=values, gap=gap)

    def _reduce_lr(self) -> None:
        """`early_stopping.lr_factor`: a function of the recorded evaluations, so it needs no state of its own."""
        if self.patience is None or self.patience.lr_factor == 1.0:
            return
        misses = ranks.agree(self.patience.misses(self.history.values(self.patience.goal.metric)))
        self._lr_factor = self.patience.lr_factor**misses

    def evaluate(self, loader: Loader) -> dict[str, float]:
        """Metrics of the network as it is now over the loader's rows."""
        return self._evaluate(loader).values

    def _evaluate(self, loader: Loader) -> Measured:
        ec = self.config.eval_config
        every = ec.log_step_count_steps if ec.HasField("log_step_count_steps") else 0
        return self._measure(loader.epoch(0), num_steps=ec.num_steps, log_every=every)

    def _measure(self, batches: Iterable[Batch], *, num_steps: int = 0, log_every: int = 0) -> Measured:
        return evaluate(
            self.network,
            self.tasks,
            batches,
            device=self.device,
            weights=self.averaged(),
            num_steps=num_steps,
            log_every=log_every,
        )

    def averaged(self, use: bool | None = None) -> contextlib.AbstractContextManager[object]:
        """Within: the network has its averaged weights, where `ema` is configured and `use_dense_ema` not false.

        Args:
            use: whether to; None takes eval_config.use_dense_ema, by default true.
        """
        if use is None:
            ec = self.config.eval_config
            use = ec.use_dense_ema if ec.HasField("use_dense_ema") else True
        return self.ema.applied() if self.ema is not None and use else contextlib.nullcontext()

    def _missing(self, split: str) -> bool:
        return bool(ranks.agree(int(self.loaders[split] is not None and not self.history.has(self.step, split))))

    def _is_done(self) -> bool:
        if self.plan.is_last(self.step, epochs=self.run.epoch):
            return True
        if self.patience is None:
            return False
        stop = bool(ranks.agree(int(self.patience.exhausted(self.history.values(self.patience.goal.metric)))))
        if stop and self.rank == 0:
            log.info("early stopping at step %d: %s did not improve", self.step, self.patience.goal.metric)
        return stop

    def _finish(self, last: Record | None) -> dict[str, float]:
        """Best weights if asked for, then the test rows."""
        best = self.best_step()
        split_metrics = dict(last.metrics) if last else {}
        if self.train_config.restore_best and best is not None:
            if best != self.step:
                self.restore_weights(best)
            if self.rank == 0:
                split_metrics = dict(self.history.at(best, "eval").metrics)
        elif not split_metrics and self.loaders["eval"] is not None:
            split_metrics = self._evaluate(self.loaders["eval"]).values
        if self.loaders["test"] is not None:
            record = self._evaluate_and_record("test")
            assert record is not None
            split_metrics |= {f"test_{n}": v for n, v in record.metrics.items()}
        self.summaries.close()
        return split_metrics

    # ---- checkpoints ----------------------------------------------------------------------------

    def best_step(self) -> int | None:
        """The step whose evaluation was best by `best_metric`, None before the first evaluation."""
        best = self.goal.best(self.history.values(self.goal.metric))
        step = ranks.agree(best[0] if best else -1)
        return None if step < 0 else step

    def restore_weights(self, step: int) -> None:
        """Put the weights of a saved step into the network (and its averages)."""
        checkpoint = self.checkpointer.at(step)
        checkpoint.verify()
        self.run.restore_weights(checkpoint)
        log.info("weights of step %d, the best by %s", step, self.goal.metric)

    def _save(self, *, evaluate: bool) -> None:
        self._mean_loss()  # never save what is not finite
        ranks.average(state.buffers(self.network))
        if self.ema is not None:
            ranks.average([t for n, t in self.ema.state().items() if n not in self.optimizers.params])
        best = self.best_step()
        self.checkpointer.save(
            self.step,
            self.run.tensors(),
            self.run.info() | {"evaluate": evaluate},
            files=config_files(self.config),
            keep_also=[] if best is None else [best],
        )

    def _start(self) -> Checkpoint | None:
        """Resume, fine-tune, or begin; returns the checkpoint that was resumed."""
        seed = self.train_config.seed
        checkpoint = self.checkpointer.latest()
        self.history.resume(checkpoint.step if checkpoint else -1)
        self.summaries.purge_step = checkpoint.step + 1 if checkpoint else 0
        if checkpoint is not None:
            if self.train_config.fine_tune_checkpoint:
                log.info("fine_tune_checkpoint has no effect: %s has checkpoints to go on from", self.model_dir)
            self.run.restore(checkpoint)
            return checkpoint
        if self.train_config.fine_tune_checkpoint:
            source = find_checkpoint(self.train_config.fine_tune_checkpoint)
            state.fine_tune(self.network, source, read_param_map(self.train_config))
            for task in self.tasks:
                task.begin_anew()
        ranks.broadcast(list(state.dense_tensors(self.network).values()))
        if self.ema is not None:
            self.ema.reset()
        state.seed_all(seed + 1, rank=self.rank)  # dropout: not the numbers of the initial weights
        return None

    def _steps_per_epoch(self) -> int | None:
        loader = self.loaders["train"]
        return None if loader is None else -(-loader.steps // self.plan.accumulate)

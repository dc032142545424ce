"""From a trained network to an export folder that was reloaded and compared before anyone sees it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import torch
from torch import Tensor, nn

from rec.config.errors import ConfigError, DataError
from rec.config.load import resolved_text
from rec.config.names import suggest
from rec.config.towers import towers_of
from rec.data.encoder import Encoder
from rec.export import assets, golden, layout, manifest, program, script
from rec.export.compare import TOLERANCE, Features, Scores, compare
from rec.export.effect import effect, metrics_of
from rec.export.plain import plain_network
from rec.export.quantize import DATA_TYPES, quantized
from rec.export.samples import empty_rows, made_up_rows, tensors_of
from rec.export.serving import ServingModule
from rec.metrics.base import world_size
from rec.network import Network
from rec.protos.pipeline_pb2 import EasyRecConfig
from rec.tasks import Task

log = logging.getLogger(__name__)

CHECK_ROWS = 512
TOWERS = ("user", "item")


class ExportError(RuntimeError):
    """The exported model does not compute what the trained one does; nothing was made visible."""


class Exporter:
    """Writes exports of one config.

    Args:
        config: the whole config.
        tasks: as `build_tasks` gives them.
        directory: the export folder, e.g. <model_dir>/export. An export that is there is replaced when
            the new one is complete and checked.
        asset_dir: where vocabulary files lie, when not where the config says.
    """

    def __init__(
        self, config: EasyRecConfig, tasks: Sequence[Task], *, directory: str | Path, asset_dir: str = ""
    ) -> None:
        self.config, self.tasks, self.directory = config, list(tasks), Path(directory)
        self.asset_dir = asset_dir
        self.settings = config.export_config
        kind = self.settings.table_data_type
        if kind not in DATA_TYPES:
            raise ConfigError(
                f'table_data_type is "{kind}"',
                self.settings,
                "table_data_type",
                hint=suggest(kind, DATA_TYPES, what="it can be"),
            )
        for name in ("cudnn_allow_tf32", "cuda_matmul_allow_tf32"):
            if self.settings.HasField(name):
                log.warning("export_config.%s has no effect: the export is traced and checked on the CPU", name)

    def export(
        self,
        network: Network,
        *,
        rows: pa.RecordBatch | None = None,
        step: int = 0,
        metrics: Mapping[str, float] | None = None,
    ) -> Path | None:
        """Writes the export; a collective call where there are several ranks.

        Args:
            network: trained; the weights that are in it are exported.
            rows: raw rows, with labels if possible, some hundreds to some thousands: for the check, the
                golden request, and the effect of smaller tables. Made up from the features without them.
            step: training step of the weights, for the manifest.
            metrics: of the weights' evaluation, for the manifest.

        Returns:
            The folder; None on ranks but the first, which write nothing.

        Raises:
            ExportError: when the reloaded model differs from the trained one.
        """
        tables = cast(Any, network.embedding).export_weights()
        if world_size() > 1 and torch.distributed.get_rank() > 0:
            return None
        started = time.monotonic()
        origin = manifest.origin(step=step, metrics=metrics or {})
        with layout.replacing(self.directory) as folder:
            if towers_of(self.config.model_config) is None:
                written = [_finished(folder, origin | self._write(folder, network, tables, rows))]
            else:
                written = []
                for tower in TOWERS:  # each is served by itself
                    (folder / tower).mkdir()
                    facts = self._write(folder / tower, network, tables, rows, tower=tower)
                    written.append(_finished(folder / tower, origin | facts))
                _finished(folder, origin | {"towers": list(TOWERS)})
        log.info(
            "exported step %d to %s  %.1f MiB  max difference %.1e  %.1f s",
            step,
            self.directory,
            sum(f["bytes"] for facts in written for f in facts["files"].values()) / 2**20,
            max(facts["check"]["max_abs_difference"] for facts in written),
            time.monotonic() - started,
        )
        return self.directory

    def _write(
        self,
        folder: Path,
        network: Network,
        tables: dict[str, Tensor],
        rows: pa.RecordBatch | None,
        *,
        tower: str = "",
    ) -> dict[str, Any]:
        """The files of a model, or of one tower of a retrieval model; returns what the manifest says of them."""
        config = assets.with_assets(self.config, folder, asset_dir=self.asset_dir)
        (folder / layout.CONFIG).write_text(resolved_text(config))
        # From the folder alone, as a server will build it.
        own_assets = str(folder / layout.ASSETS)
        encoder = Encoder.from_config(config, with_labels=False, asset_dir=own_assets, tower=tower)
        # The trained network needs the features of both towers; a traced one ignores what it does not read.
        whole = Encoder.from_config(config, with_labels=False, asset_dir=own_assets) if tower else encoder
        samples = self._samples(whole, rows)
        batches = {name: tensors_of(whole, sample) for name, sample in samples.items()}

        only = [f"{tower}_embedding"] if tower else []
        full = ServingModule(plain_network(network, tables, whole.features, config), self.tasks, only=only).eval()
        graph = script.trace(full)
        if tower:
            graph = script.pruned(graph)
            tables = {n: t for n, t in tables.items() if f"network.embedding.{n}" in dict(graph.named_parameters())}
        served = quantized(graph, self.settings.table_data_type)
        script.save(script.script(served), folder / layout.MODEL)
        model = script.load(folder / layout.MODEL)

        trained: Callable[[Features], Scores] = full
        if world_size() == 1:  # a sharded look-up needs all ranks
            trained = _Eager(ServingModule(network, self.tasks, only=only))
        unchanged = served is graph
        found = _checked(model if unchanged else full, trained, batches, layout.MODEL)
        if not unchanged:
            _checked(model, served, batches, layout.MODEL)
        example = next(name for name in samples if samples[name].num_rows > 1)
        own = {name: batches[example][name] for name in encoder.tensors()}
        with torch.no_grad():
            scores = model(own)
        facts: dict[str, Any] = {
            **({"tower": tower} if tower else {}),
            "ops_libraries": script.libraries(model),
            "columns": manifest.columns(encoder.request_schema()),
            "inputs": manifest.inputs(encoder.features, own),
            "outputs": manifest.outputs(scores),
            "check": {
                "compared_with": "its plain copy" if trained is full else "the trained network",
                **manifest.differences(found),
            },
            "tables": self._tables(full, model, unchanged, tables, batches, rows),
        }
        if self.settings.torch_export:
            read = {name: {n: batch[n] for n in own} for name, batch in batches.items()}
            facts["program"] = _program(served, folder, read, example)
        first = samples[example].select(encoder.request_schema().names).slice(0, golden.ROWS)
        features = tensors_of(encoder, first)
        with torch.no_grad():
            golden.write(folder, first, features, model(features))
        facts["golden"] = {"rows": first.num_rows, "made_up": rows is None}
        return facts

    def _samples(self, encoder: Encoder, rows: pa.RecordBatch | None) -> dict[str, pa.RecordBatch]:
        """Raw rows to check with: many, one, and with everything missing."""
        names = encoder.request_schema().names
        samples: dict[str, pa.RecordBatch] = {}
        if rows is not None and rows.num_rows:
            data = rows.select(names).slice(0, CHECK_ROWS)
            samples |= {f"{data.num_rows} rows of data": data, "1 row of data": data.slice(0, 1)}
        made_up = made_up_rows(encoder, CHECK_ROWS)
        samples |= {f"{CHECK_ROWS} made-up rows": made_up, "1 made-up row": made_up.slice(0, 1)}
        for count in (3, 1):
            empty = empty_rows(encoder, count)
            if empty is not None:
                samples[f"{count} row{'s' if count > 1 else ''} with everything missing"] = empty
        return samples

    def _tables(
        self,
        full: nn.Module,
        model: Callable[[Features], Scores],
        unchanged: bool,
        tables: dict[str, Tensor],
        batches: dict[str, Features],
        rows: pa.RecordBatch | None,
    ) -> dict[str, Any]:
        """Storage of the tables, and what it does to scores and metrics."""
        facts: dict[str, Any] = {
            "data_type": self.settings.table_data_type,
            "rows": sum(t.shape[0] for t in tables.values()),
            "fp32_bytes": sum(t.numel() * 4 for t in tables.values()),
        }
        labelled = self._labelled(rows)
        if labelled is not None:
            facts["metrics"] = metrics_of(model, self.tasks, *labelled)
            facts["metrics_rows"] = labelled[1].num_rows
        if unchanged:
            return facts
        found = compare(model, full, batches)
        facts["effect"] = {
            "max_abs_score_difference": {name: d.largest for name, d in found.items()},
            "metrics": effect(metrics_of(full, self.tasks, *labelled), facts["metrics"]) if labelled else {},
        }
        return facts

    def _labelled(self, rows: pa.RecordBatch | None) -> tuple[Encoder, pa.RecordBatch] | None:
        """The rows with an encoder of labels too; None when they have none, or metrics are of whole batches."""
        if rows is None or towers_of(self.config.model_config) is not None:
            return None
        encoder = Encoder.from_config(self.config, asset_dir=self.asset_dir)
        return (encoder, rows) if set(encoder.columns) <= set(rows.schema.names) else None


def _finished(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Writes the manifest over what lies in the folder."""
    facts["files"] = layout.files_of(folder)
    (folder / layout.MANIFEST).write_text(json.dumps(facts, indent=2) + "\n")
    return facts


class _Eager:
    """The trained network as it is, on its device, in eval mode while it is called."""

    def __init__(self, module: ServingModule) -> None:
        self.module = module
        self.device = next(module.network.parameters(), torch.empty(0)).device

    def __call__(self, features: Features) -> Scores:
        training = self.module.network.training
        self.module.eval()
        try:
            scores = self.module({k: v.to(self.device) for k, v in features.items()})
        finally:
            self.module.network.train(training)
        return {k: v.cpu() for k, v in scores.items()}


def _checked(
    model: Callable[[Features], Scores],
    reference: Callable[[Features], Scores],
    batches: dict[str, Features],
    what: str,
) -> dict[str, Any]:
    """Differences on every batch; raises ExportError where they are too large."""
    try:
        found = compare(model, reference, batches)
    except ValueError as error:
        raise ExportError(f"{what} differs from the trained network: {error}") from error
    worst = max(found, key=lambda name: found[name].relative)
    if found[worst].relative > TOLERANCE:
        raise ExportError(
            f"{what} differs from the trained network by {found[worst].largest:.2e} on {worst} "
            f"(tolerance {TOLERANCE:.0e}); nothing was written"
        )
    return found


def _program(module: nn.Module, folder: Path, batches: dict[str, Features], example: str) -> dict[str, Any]:
    """Writes and checks the torch.export program. What it cannot do is reported: the scripted model stands."""
    try:
        program.save(program.export_program(module, batches[example]), folder / layout.PROGRAM)
        found = _checked(program.load(folder / layout.PROGRAM), module, batches, layout.PROGRAM)
    except Exception as error:  # torch.export raises all kinds; the scripted model is what is served
        (folder / layout.PROGRAM).unlink(missing_ok=True)
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        log.warning("no %s: torch.export cannot take this model (%s)", layout.PROGRAM, reason)
        return {"error": f"{type(error).__name__}: {reason}"}
    return manifest.differences(found)


def sample_of(table: pa.Table, rows: int) -> pa.RecordBatch:
    """The first rows of a table as one batch, for `Exporter.export`."""
    if table.num_rows == 0:
        raise DataError("no rows to check the export with")
    return table.slice(0, rows).combine_chunks().to_batches()[0]

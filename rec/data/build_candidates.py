"""From a config to the candidates of its batches."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa

from rec.config.errors import ConfigError, DataError
from rec.config.registry import oneof
from rec.data.candidates import Candidates
from rec.data.edges import Edges
from rec.data.encoder import Encoder
from rec.data.frequency import MOST_ROWS, Frequency
from rec.data.identity import ItemIdentity
from rec.data.item_file import ItemFile
from rec.data.items import ItemTable
from rec.data.negatives import Sampler
from rec.data.source import Source
from rec.data.sources import open_source
from rec.features.base import Feature
from rec.features.towers import tower_features
from rec.protos import pipeline_pb2

log = logging.getLogger(__name__)

# Training rows whose items are looked up in the item file, where nothing else counts them: a share of 1e-5 shows.
_LOOKED_AT = 1_000_000


class Retrieval:
    """Catalogue, edges and frequencies of a retrieval config, each read when first needed and shared by its loaders.

    Args:
        config: the whole config, of a model with towers.
        features: as `build_features` gives them.

    Raises:
        ConfigError: no negatives at all.
    """

    def __init__(self, config: pipeline_pb2.EasyRecConfig, features: Sequence[Feature]) -> None:
        self.config = config
        self.features = list(features)
        self.settings = config.model_config.retrieval
        model: Any = oneof(config.model_config, "model")
        self.in_batch = bool(getattr(model, "in_batch_negative", False))
        self.remembered = self.settings.HasField("cross_batch_memory")
        data = config.data_config
        member = data.WhichOneof("sampler")
        self.message: Any = getattr(data, member) if member else None
        if self.message is None and not self.in_batch:
            raise ConfigError(
                f"{model.DESCRIPTOR.name} has no negatives",
                model,
                hint="set in_batch_negative: true, or a negative_sampler in data_config",
            )

    @property
    def item_features(self) -> list[Feature]:
        """Features of the item tower, and what they read."""
        return tower_features(self.features, self.config.model_config, "item")

    @property
    def identity(self) -> ItemIdentity:
        """What tells items apart."""
        column = self.settings.item_id_field or (self.message.item_id_field if self.message is not None else "")
        names = tuple(f.name for f in self.item_features if not f.stub and not f.is_sequence)
        if not column and not names:
            raise ConfigError(
                "nothing tells items apart: the item tower reads sequences only",
                self.config.model_config,
                hint='set retrieval { item_id_field: "item_id" }',
            )
        return ItemIdentity(column, names)

    def item_file(self) -> ItemFile:
        """The item file of the sampler."""
        message = self.message
        return self._item_file(
            message.input_path if "input_path" in message.DESCRIPTOR.fields_by_name else message.item_input_path
        )

    def catalogue_file(self) -> ItemFile:
        """The item file of the whole catalogue: `item_input_path`, or that of the sampler.

        Raises:
            ConfigError: there is none, or nothing says which column holds the item's id.
        """
        path, message = self.settings.item_input_path, self.message
        if not path and message is None:
            raise ConfigError(
                "no item file says what the catalogue is",
                self.config.model_config,
                hint='set retrieval { item_input_path: "data/items.parquet" }',
            )
        if not self.identity.column:
            raise ConfigError(
                "nothing says which column holds the item's id",
                self.config.model_config,
                hint='set retrieval { item_id_field: "item_id" }',
            )
        return self._item_file(path) if path else self.item_file()

    def id_type(self) -> pa.DataType | None:
        """Type of the item ids in the training data; None where that is gone."""
        try:
            return self._type(self.identity.column)
        except DataError as error:
            log.warning("item ids stay as the item file has them: %s", error)
            return None

    def _item_file(self, path: str) -> ItemFile:
        message = self.message
        if message is None:
            columns = Encoder(self.item_features).columns
            return ItemFile(path, id_field=self.settings.item_id_field, attributes=columns, ordered=False)
        return ItemFile(
            path,
            id_field=message.item_id_field,
            attributes=message.attr_fields,
            attr_delimiter=message.attr_delimiter,
            field_delimiter=message.field_delimiter,
        )

    @cached_property
    def table(self) -> ItemTable:
        """The encoded catalogue."""
        return ItemTable(
            self.item_file(),
            self.item_features,
            exponent=self.message.weight_exponent,
            id_type=self._type(self.message.item_id_field),
        )

    @cached_property
    def frequency(self) -> Frequency:
        """Shares of the items among the training rows."""
        return self._count(MOST_ROWS)

    def _count(self, most: int) -> Frequency:
        identity = self.identity
        encoder = Encoder([] if identity.column else self.item_features)
        source = self._source(encoder, [identity.column] if identity.column else encoder.columns)
        return Frequency(source, encoder, identity, seed=self.config.train_config.seed, most=most)

    def training(self) -> Candidates:
        """Candidates of training batches. Warns of items of training rows that the item file lacks."""
        frequency = self.frequency if (self.in_batch or self.remembered) and self.settings.logq_correction else None
        if self.message is not None:
            self._warn_of_lacking(frequency or self._count(_LOOKED_AT))
        return self._candidates(
            self._sampler(self.message.num_sample) if self.message is not None else None,
            frequency,
            mask_prob=self.config.data_config.negative_sample_mask_prob,
            remembered=self.remembered,
        )

    def _warn_of_lacking(self, frequency: Frequency) -> None:
        items, share = frequency.lacking(self.table)
        if items:
            log.warning(
                "the item file lacks %d items of the training rows, those of %.3g %% of %d rows: they are learnt from, "
                "but never drawn as negatives, and neither ranked nor indexed; add them to it",
                items,
                100 * share,
                frequency.rows,
            )

    def evaluation(self) -> Candidates:
        """Candidates of evaluation batches, which are no draws by the frequencies of training."""
        if self.message is None:
            return self._candidates(None, None)
        return self._candidates(self._sampler(self.message.num_eval_sample or self.message.num_sample), None)

    def _candidates(
        self,
        sampler: Sampler | None,
        frequency: Frequency | None,
        *,
        mask_prob: float = 0.0,
        remembered: bool = False,
    ) -> Candidates:
        edges = sampler is not None and (sampler.known is not None or sampler.hard is not None)
        return Candidates(
            self.identity,
            sampler,
            frequency,
            user_field=self.message.user_id_field if edges else "",
            in_batch=self.in_batch,
            mask_same_item=self.settings.mask_same_item,
            correct=self.settings.logq_correction,
            mask_prob=mask_prob,
            remembered=remembered,
        )

    def _sampler(self, count: int) -> Sampler:
        return Sampler(
            self.table,
            count,
            exclude_batch=self._known is None,
            known=self._known,
            hard=self._hard,
            most_hard=getattr(self.message, "num_hard_sample", 0),
        )

    @cached_property
    def _known(self) -> Edges | None:
        return self._edges("pos_edge_input_path")

    @cached_property
    def _hard(self) -> Edges | None:
        return self._edges("hard_neg_edge_input_path")

    def _edges(self, field: str) -> Edges | None:
        path = getattr(self.message, field, "")
        if not path:
            return None
        return Edges(
            path,
            self.table,
            user_type=self._type(self.message.user_id_field),
            item_type=self._type(self.message.item_id_field),
            field_delimiter=self.message.field_delimiter,
        )

    def _type(self, column: str) -> pa.DataType:
        """Type of a column of the training data."""
        kind = self._source(Encoder([]), [column]).schema.field(column).type
        return kind.value_type if pa.types.is_dictionary(kind) else kind

    def _source(self, encoder: Encoder, columns: list[str]) -> Source:
        return open_source(self.config.train_input_path, self.config.data_config, encoder, columns=columns)

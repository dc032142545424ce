"""From a config to its tree, and to what is learned from it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa

from rec.config.errors import ConfigError
from rec.config.names import listed
from rec.data.catalogue import Catalogue
from rec.data.encoder import Encoder
from rec.data.item_file import ItemFile
from rec.data.sources import open_source
from rec.data.tree import Tree
from rec.data.tree_files import NodeFile
from rec.data.tree_rows import LevelChoice, TreeRows, TreeSampler
from rec.features.base import Feature
from rec.features.build import encoding_order, sources
from rec.protos import pipeline_pb2

log = logging.getLogger(__name__)


class TreeIndex:
    """The tree of a config with a `tdm_sampler`, read when it is first needed.

    Args:
        config: the whole config.
        features: as `build_features` gives them.

    Attributes:
        node_features: features that read nothing but the attributes of nodes, with the stubs that they read.
        user_features: all others, likewise.

    Raises:
        ConfigError: a feature that reads columns of both, or nodes have none.
    """

    def __init__(self, config: pipeline_pb2.EasyRecConfig, features: Sequence[Feature]) -> None:
        self.config, self.message = config, config.data_config.tdm_sampler
        self.node_features, self.user_features = self._split(features)

    def _split(self, features: Sequence[Feature]) -> tuple[list[Feature], list[Feature]]:
        by_name = {f.name: f for f in features}
        attributes = {"tree_level", self.message.item_id_field, *self.message.attr_fields}

        def columns(feature: Feature) -> set[str]:
            own = {name for name in feature.inputs if not name.startswith("feature:")}
            return own.union(*(columns(by_name[name]) for name in sources(feature)))

        node: list[str] = []
        user: list[str] = []
        for feature in features:
            if feature.stub:
                continue
            read = columns(feature)
            if read and read <= attributes:
                node.append(feature.name)
            elif read & attributes:
                raise ConfigError(
                    f'feature "{feature.name}" reads {listed(sorted(read & attributes))} of the node and '
                    f"{listed(sorted(read - attributes))} of the user",
                    feature.config,
                    "feature_name",
                    hint="leave it out: a node is scored for users that did not come with it",
                )
            else:
                user.append(feature.name)
        if not node:
            raise ConfigError(
                "no feature reads the attributes of nodes",
                self.message,
                "attr_fields",
                hint="name the columns of the item",
            )

        def with_stubs(names: list[str]) -> list[Feature]:
            for name in names:  # grows
                names += [source for source in sources(by_name[name]) if source not in names]
            return [f for f in encoding_order(list(features)) if f.name in names]

        return with_stubs(node), with_stubs(user)

    @cached_property
    def tree(self) -> Tree:
        """The tree, checked against all files of the sampler."""
        message = self.message
        tree = Tree(
            self._nodes(),
            message.predict_edge_input_path,
            self.node_features,
            id_type=self.id_type,
            field_delimiter=message.field_delimiter,
        )
        tree.verify(message.edge_input_path, self.id_type, field_delimiter=message.field_delimiter)
        return tree

    def _nodes(self) -> NodeFile:
        message = self.message
        return NodeFile(
            message.item_input_path,
            id_field=message.item_id_field,
            attributes=message.attr_fields,
            attr_delimiter=message.attr_delimiter,
            field_delimiter=message.field_delimiter,
        )

    @cached_property
    def id_type(self) -> pa.DataType:
        """Type of the item ids in the training data."""
        data = self.config.data_config
        source = open_source(self.config.train_input_path, data, Encoder([]), columns=[self.message.item_id_field])
        kind = source.schema.field(self.message.item_id_field).type
        return kind.value_type if pa.types.is_dictionary(kind) else kind

    def training(self) -> TreeRows:
        """What training batches become."""
        message = self.message
        return self._rows(LevelChoice.of(message.remain_ratio, message.probability_type, self.tree.depth))

    def evaluation(self) -> TreeRows:
        """What evaluation batches become: all levels."""
        return self._rows(None)

    def leaf_ids(self) -> tuple[pa.Array, np.ndarray]:
        """Ids of the items, and the numbers of their nodes, int64, in the order of the node file."""
        ids, numbers = [], []
        nodes = self._nodes()
        for place, items in enumerate(nodes.items(self.id_type)):
            leaf = nodes.levels[place] == self.tree.depth
            ids.append(items.ids.filter(pa.array(leaf)))
            numbers.append(self.tree.table.find(nodes.keys[place][leaf]))
        return pa.concat_arrays(ids), np.concatenate(numbers)

    def catalogue(self) -> tuple[Catalogue, np.ndarray]:
        """Items that are ranked, and the number of each node among them.

        They are those of `retrieval { item_input_path }`, or all leaves; the numbers are int64 [nodes], -1 for no item.
        """
        file = self.catalogue_file()
        if file is not None:
            catalogue = Catalogue([(items.ids, items.weights) for items in file.items(self.id_type)])
        else:
            ids, _ = self.leaf_ids()
            catalogue = Catalogue([(ids, np.ones(len(ids)))])
        numbers = catalogue.find(self.tree.table.arrays["key"])
        return catalogue, np.where(self.tree.arrays["level"] == self.tree.depth, numbers, -1)

    def catalogue_file(self) -> ItemFile | None:
        """The item file of `retrieval { item_input_path }`: which leaves are measured, and how popular they are."""
        path = self.config.model_config.retrieval.item_input_path
        return ItemFile(path, id_field=self.message.item_id_field, attributes=()) if path else None

    def _rows(self, choice: LevelChoice | None) -> TreeRows:
        labels = self.config.data_config.label_fields
        return TreeRows(
            TreeSampler(self.tree, self._counts, choice),
            self.message.item_id_field,
            tuple(f.name for f in self.node_features if not f.stub),
            labels[0] if labels else "",
        )

    @cached_property
    def _counts(self) -> tuple[int, ...]:
        tree, asked = self.tree, list(self.message.layer_num_sample)
        if len(asked) != tree.depth + 1:
            raise ConfigError(
                f"layer_num_sample has {len(asked)} levels, the tree has {tree.depth + 1} with its root",
                self.message,
                "layer_num_sample",
                hint="give a number for each, 0 for the root",
            )
        counts = []
        for level, count in enumerate(asked):
            drawable = tree.drawable(level)
            counts.append(min(count, max(0, drawable - 1)))
            if count > counts[-1]:
                log.warning(
                    "layer_num_sample asks for %d negatives on level %d, which has %d others", count, level, counts[-1]
                )
        return tuple(counts)

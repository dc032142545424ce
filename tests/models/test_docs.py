"""The pages of docs/models: one a model, with an example that builds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from google.protobuf import text_format

from rec.config.registry import oneof
from rec.embedding.shapes import GroupShape, GroupShapes
from rec.models import MODELS
from rec.protos import model_pb2, pipeline_pb2

FOLDER = Path(__file__).parents[2] / "docs/models"
PAGES = sorted(page for page in FOLDER.glob("*.md") if page.name != "README.md")


def test_every_model_has_a_page_and_a_line_in_the_table() -> None:
    fields = model_pb2.ModelConfig.DESCRIPTOR.oneofs_by_name["model"].fields
    registered = {message.DESCRIPTOR.full_name for message in MODELS.types()}
    names = {field.name for field in fields if field.message_type.full_name in registered}
    assert {page.stem for page in PAGES} == names
    table = (FOLDER / "README.md").read_text()
    assert all(f"[`{name}`]({name}.md)" in table for name in names)


def members(group: model_pb2.FeatureGroupConfig) -> GroupShape:
    """Shapes of an example: every feature 8 wide, prices dense."""
    features = tuple((name, 1 if name.startswith("price") else 8) for name in group.feature_names)
    steps = tuple(f for f in features if "__" in f[0])
    return GroupShape(
        name=group.group_name,
        type=(kind := model_pb2.FeatureGroupType.Name(group.group_type)),
        features=features,
        query=tuple(f for f in features if f not in steps) if steps else (),
        sequence=steps,
        max_length=50 if steps else 0,
        rows=1000 if kind == "CATALOGUE" else 0,
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_example_builds_and_names_the_page_s_model(page: Path) -> None:
    (example,) = re.findall(r"```protobuf\n(.*?)```", page.read_text(), re.S)
    config = text_format.Parse(example, pipeline_pb2.EasyRecConfig()).model_config
    assert config.WhichOneof("model") == page.stem
    shapes = GroupShapes([members(group) for group in config.feature_groups])
    MODELS.build(oneof(config, "model"), shapes, num_class=config.num_class)


@pytest.mark.parametrize("page", [*PAGES, FOLDER / "README.md"], ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), link

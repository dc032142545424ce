from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format

from rec.config.build import Builder
from rec.config.errors import ConfigError
from rec.config.textproto import Block, Loc, Scalar, parse, render
from rec.protos import pipeline_pb2
from tests.config.fragments import FRAGMENTS


def test_every_entry_knows_its_line_and_column() -> None:
    entries = parse('a: 1\n  b {\n    c: "x" # note\n  }\n', "f")
    assert [str(e.loc) for e in entries] == ["f:1:1", "f:2:3"]
    block = entries[1].value
    assert isinstance(block, Block)
    assert block.entries[0].loc == Loc("f", 3, 5)
    assert block.entries[0].value == Scalar("string", "x", Loc("f", 3, 8))


@pytest.mark.parametrize("text", [*FRAGMENTS, 'a: [] b { c: "\\"\\n\\\\ é" d: [1, -2.5e-3] e [{ f: inf }, {}] }'])
def test_rendered_entries_are_read_back_the_same(text: str) -> None:
    once = render(parse(text, "f"))
    assert render(parse(once, "f")) == once
    assert [(e.name, type(e.value)) for e in parse(once, "f")] == [(e.name, type(e.value)) for e in parse(text, "f")]
    if text in FRAGMENTS:
        config, again = pipeline_pb2.EasyRecConfig(), pipeline_pb2.EasyRecConfig()
        Builder().fill(config, parse(text, "f"), Loc("f", 1, 1))
        Builder().fill(again, parse(once, "f"), Loc("f", 1, 1))
        assert config == again


@pytest.mark.parametrize("text", FRAGMENTS)
def test_reads_what_text_format_reads(text: str) -> None:
    config = pipeline_pb2.EasyRecConfig()
    Builder().fill(config, parse(text, "f"), Loc("f", 1, 1))
    assert config == text_format.Merge(text, pipeline_pb2.EasyRecConfig())


CONFIGS = sorted((Path(__file__).parents[2] / "configs").rglob("*.config"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_reads_our_configs_as_text_format_does(path: Path) -> None:
    text = path.read_text()
    config = pipeline_pb2.EasyRecConfig()
    Builder().fill(config, parse(text, "f"), Loc("f", 1, 1))
    assert config == text_format.Merge(text, pipeline_pb2.EasyRecConfig())


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a:",
        "a: }",
        "a: [1",
        "a: [1 2]",
        "a: [[1]]",
        "a {",
        "}",
        'a: "x',
        "a: 1.2.3",
        "a: 0x",
        "1: 2",
        "a: @",
        r'a: "\q"',
    ],
)
def test_what_is_not_text_format_is_refused_with_a_place(text: str) -> None:
    with pytest.raises(ConfigError) as e:
        parse(text, "f")
    assert e.value.where is not None
    assert e.value.where.startswith("f:1:")
    with pytest.raises(text_format.ParseError):
        text_format.Parse(text, pipeline_pb2.EasyRecConfig())

"""The snippets of docs/guide/retrieval.md are of the schema, and pass its checks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rec.config.load import load_config

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/guide/retrieval.md").read_text()
SNIPPETS = [text for kind, text in re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE) if not kind]


@pytest.mark.parametrize("text", SNIPPETS, ids=lambda text: re.findall(r"\w+", text)[1])
def test_a_snippet_goes_over_a_config(text):
    config = "tdm" if "tdm" in text else "dssm"
    assert load_config(ROOT / f"configs/tiny/{config}.config", [text]).warnings == []


def test_the_page_shows_samplers_memory_metrics_index_and_tree():
    shown = " ".join(SNIPPETS)
    for name in ("negative_sampler {", "hard_negative_sampler_v2", "cross_batch_memory", "top_k", "index", "search"):
        assert name in shown

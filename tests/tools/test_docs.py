"""What README and guide say must hold."""

import re
import shlex
from pathlib import Path

import pytest

from rec.config.load import load_config, load_text
from tools.convert.__main__ import parser as convert_parser
from tools.generate.__main__ import parser as generate_parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES += [page for folder in ("docs", "docs/guide", "docs/models") for page in sorted((ROOT / folder).glob("*.md"))]


def test_the_config_of_the_readme_loads_without_a_warning():
    (text,) = re.findall(r"```proto\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    loaded = load_text(text, "README.md")
    assert loaded.warnings == []
    assert len(loaded.config.model_config.feature_groups[0].feature_names) == 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(((?!https?:)[^)#]+)\)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_and_configs_that_are_named_exist(page):
    text = page.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z-]+)", " ".join(re.findall(r"`[^`]*`|```.*?```", text, re.DOTALL)))) <= targets
    # x.config stands for a new model's.
    for name in set(re.findall(r"configs/[\w/]+\.config", text)) - {"configs/tiny/x.config"}:
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_converters_and_generators_take_the_arguments_that_are_shown(page):
    # A line that goes on ends with a backslash.
    text = page.read_text().replace("\\\n", " ")
    for tool, parser in (("convert", convert_parser), ("generate", generate_parser)):
        for command in re.findall(rf"^(?:\$ )?python -m tools\.{tool} (.*)$", text, re.MULTILINE):
            parser().parse_args(shlex.split(command, comments=True))


def test_configs_of_the_datasets_page_load_without_a_warning(tmp_path):
    text = (ROOT / "docs/guide/datasets.md").read_text()
    for block in re.findall(r"```proto\n(.*?)```", text, re.DOTALL):
        config = tmp_path / "my.config"
        config.write_text(block.replace('include: "', f'include: "{ROOT}/'))
        assert load_config(config).warnings == []

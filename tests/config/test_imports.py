from __future__ import annotations

from pathlib import Path

import pytest

from rec.config.errors import ConfigError
from rec.config.imports import custom_kwargs, import_object
from rec.config.load import load_text
from rec.protos import custom_pb2
from tests.config.texts import FEATURES, MODEL, TRAIN


@pytest.mark.parametrize("path", ["collections:OrderedDict", "collections.OrderedDict"])
def test_both_spellings_find_the_object(path: str) -> None:
    from collections import OrderedDict

    assert import_object(path) is OrderedDict


def test_a_name_inside_a_class_is_found() -> None:
    assert import_object("pathlib:Path.cwd") == Path.cwd


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("nothing", 'is not an import path; write "package.module:Name"'),
        ("no_such_package.x:Y", r'cannot import "no_such_package.x" \(ModuleNotFoundError.*PYTHONPATH'),
        ("collections:OrderdDict", 'has no "OrderdDict"; did you mean "OrderedDict"?'),
    ],
)
def test_what_fails_is_named(path: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match.replace("?", r"\?")):
        import_object(path)


def test_an_error_inside_the_users_module_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module_that_raises.py").write_text("raise ValueError('my own fault')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"ValueError: my own fault\).*the module itself raised it"):
        import_object("module_that_raises:X")


KWARGS = """custom_loss { class_path: "a:B" kwargs {
  whole: 3 half: 0.5 word: "w" yes: true names: ["a", "b"] inner { deep: -2 } none: []
} }"""


def test_kwargs_are_written_as_fields() -> None:
    text = TRAIN + FEATURES + MODEL.replace("losses { binary_cross_entropy {} }", f"losses {{ {KWARGS} }}")
    custom = load_text(text).config.model_config.losses[0].custom_loss
    assert custom_kwargs(custom) == {
        "whole": 3, "half": 0.5, "word": "w", "yes": True, "names": ["a", "b"], "inner": {"deep": -2}, "none": [],
    }  # fmt: skip
    assert isinstance(custom_kwargs(custom)["whole"], int)


def test_kwargs_survive_the_resolved_config() -> None:
    text = TRAIN + FEATURES + MODEL.replace("losses { binary_cross_entropy {} }", f"losses {{ {KWARGS} }}")
    found = load_text(text)
    assert load_text(found.text()).config == found.config


def test_the_long_form_of_kwargs_works() -> None:
    custom = custom_pb2.Custom()
    custom.kwargs.update({"a": 1, "b": None})
    assert custom_kwargs(custom) == {"a": 1, "b": None}


def test_a_bare_word_in_kwargs_is_refused() -> None:
    text = (
        TRAIN
        + FEATURES
        + MODEL.replace("losses { binary_cross_entropy {} }", "losses { custom_loss { kwargs { a: b } } }")
    )
    with pytest.raises(ConfigError, match='b is neither a number, true, false nor a string; write "b"'):
        load_text(text)

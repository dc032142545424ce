"""Vocabularies: words to ids by an open hash table in numpy arrays."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rec.config.errors import ConfigError
from rec.features import parse
from rec.features.columns import is_text, missing
from rec.features.hashing import hash_text

# splitmix64's finaliser: spreads integer keys over the slots
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)


class _Index:
    """Maps uint64 keys to int64 values.

    Keys are sorted, and `starts` points to the first key of each prefix, so that a look-up is one
    jump and a few comparisons, for all keys at once.
    """

    def __init__(self, keys: np.ndarray, values: np.ndarray) -> None:
        order = np.argsort(keys, kind="stable")
        bits = max(int(2 * len(keys)).bit_length(), 1)
        self.shift = np.uint64(64 - bits)
        self.keys = keys[order]
        self.values = values[order]
        slots = (self.keys >> self.shift).astype(np.int64)
        self.starts = np.searchsorted(slots, np.arange((1 << bits) + 1)).astype(np.int32)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """int64 [N], -1 where the key is not known."""
        out = np.full(len(keys), -1, np.int64)
        slot = (keys >> self.shift).astype(np.int64)
        at, stop = self.starts[slot], self.starts[slot + 1]
        left = np.flatnonzero(at < stop)
        while len(left):
            here = at[left]
            hit = self.keys[here] == keys[left]
            out[left[hit]] = self.values[here[hit]]
            left = left[~hit]
            at[left] += 1
            left = left[at[left] < stop[left]]
        return out


class Vocabulary:
    """Words and their ids.

    Text is found by its 64-bit hash: that no two words of the vocabulary share one is checked here; that
    an unknown word hits one by chance has a probability of `len(words) / 2^64`. Integer columns are
    found by value, as if written in decimal.

    Args:
        words: string array [V] without nulls or repeated words.
        ids: int64 [V].
    """

    def __init__(self, words: pa.Array, ids: np.ndarray) -> None:
        hashes = hash_text(words)
        if len(np.unique(hashes)) != len(hashes):
            raise ConfigError("two words of a vocabulary have the same 64-bit hash", hint="rename one of them")
        self._text = _Index(hashes, ids)
        numbers, _ = parse.integers(words)
        # "007" is a word that the integer 7 does not match.
        canonical = np.asarray(pc.equal(pa.array(numbers).cast(pa.string()), words.cast(pa.string())))
        self._integers = _Index(_spread(numbers[canonical]), ids[canonical])

    def find(self, values: pa.Array) -> tuple[np.ndarray, np.ndarray | None]:
        """Ids int64 [N], -1 for unknown words, and the mask of elements that are no words."""
        if is_text(values.type):
            return self._text.find(hash_text(values)), None
        numbers, bad = parse.integers(values)
        return self._integers.find(_spread(numbers)), bad


def read_vocab_file(path: str, config, *, label: str, field: str = "vocab_file") -> tuple[pa.Array, np.ndarray]:
    """Words and ids of a vocabulary file.

    Either one word per line (its id is the number of the line, from 0), or "word id" on every line,
    separated by white space. It is the second form when the last field of every line is an integer.

    Raises:
        ConfigError: at that `field` of `config`, when the file is missing, empty or repeats a word.
    """

    def wrong(text: str, hint: str) -> ConfigError:
        return ConfigError(f'{label}: {field} "{path}" {text}', config, field, hint=hint)

    if not os.path.isfile(path):
        raise wrong(
            "does not exist", "give the path of a text file, relative to where the command runs or to asset_dir"
        )
    with open(path, "rb") as file:
        content = file.read()
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as e:
        raise wrong(f"is not UTF-8 at byte {e.start}", "convert it to UTF-8") from e
    array = pa.array([content.decode("utf-8-sig").rstrip("\r\n")], pa.large_string())
    lines = pc.utf8_trim_whitespace(pc.list_flatten(pc.split_pattern(array, "\n")))
    empty = np.asarray(pc.equal(lines, ""))
    if empty.any():
        raise wrong(f"has an empty line {int(empty.argmax()) + 1}", "one word per line")
    if bool(pc.all(pc.match_substring_regex(lines, r"\s[0-9]{1,18}$")).as_py()):
        words = pc.utf8_trim_whitespace(pc.replace_substring_regex(lines, r"\s[0-9]+$", ""))
        ids = np.asarray(pc.replace_substring_regex(lines, r"^.*\s", "").cast(pa.int64()))
    else:
        words, ids = lines, np.arange(len(lines), dtype=np.int64)
    again = repeated(words)
    if again is not None:
        raise wrong(f'repeats "{words[again].as_py()}" in line {again + 1}', "keep one line per word")
    return words, ids


def repeated(words: pa.Array) -> int | None:
    """Position of the first word that stands earlier already, or None."""
    codes = words.dictionary_encode().indices.to_numpy()
    first = np.zeros(len(codes), bool)
    first[np.unique(codes, return_index=True)[1]] = True
    return None if first.all() else int((~first).argmax())


def present(values: pa.Array) -> bool:
    """Whether every element holds something."""
    return missing(values) is None


def _spread(keys: np.ndarray) -> np.ndarray:
    # A bijection of 64 bits, so equal results mean equal integers.
    x = keys.astype(np.int64).view(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * _M1
    x = (x ^ (x >> np.uint64(27))) * _M2
    return x ^ (x >> np.uint64(31))

"""kill -9 at random moments, on the real thing: main, workers, fbgemm, files."""

import pytest
from killing import SETTINGS, torture

from tests.tiny_data import overrides, write_tiny


@pytest.mark.slow
def test_three_kills_change_no_bit(tmp_path):
    data = write_tiny(tmp_path / "data")
    settings = [SETTINGS, *overrides(data)]
    assert torture("configs/tiny/deepfm.config", settings, tmp_path, kills=3, seed=1) == []

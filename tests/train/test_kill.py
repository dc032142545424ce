"""kill -9 at random moments, on the real thing: main, workers, fbgemm, files."""

import pytest
from killing import SETTINGS, torture

from tests.tiny_data import overrides, write_tiny


@pytest.mark.slow
def test_three_kills_change_no_bit(tmp_path):
    data = write_tiny(tmp_path / "data")
    settings = [SETTINGS, *overrides(data)]
    assert torture("configs/tiny/deepfm.config", settings, tmp_path, kills=3, seed=1) == []


# Dropout of steps, of blocks and of whole modalities draws random numbers; rows are of different lengths.
MULTIMODAL = """
train_config { num_epochs: 4 save_checkpoints_steps: 4 keep_checkpoint_max: 3 log_step_count_steps: 1 }
export_config { after_training: false }
data_config { num_workers: 1 }
model_config { msa { modality_dropout: 0.3 } }
"""


@pytest.mark.slow
def test_kills_change_no_bit_of_a_model_of_sequences_of_vectors(tmp_path):
    data = write_tiny(tmp_path / "data")
    settings = [MULTIMODAL, *overrides(data)]
    assert torture("configs/tiny/msa.config", settings, tmp_path, kills=2, seed=1) == []

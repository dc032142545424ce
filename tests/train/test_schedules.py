import math

import pytest
from google.protobuf import text_format

from rec.config.errors import ConfigError
from rec.protos import optimizer_pb2 as pb
from rec.train.schedules import Horizon, build_schedule


def schedule(text: str, base: float = 1.0, horizon: Horizon | None = None, **kwargs):
    msg = text_format.Parse(text, pb.DenseOptimizer())
    return build_schedule(msg, base=base, horizon=horizon or Horizon(), **kwargs)


def over_steps(s, n):
    return [s(step, 0) for step in range(n)]


def test_without_a_schedule_the_rate_is_constant():
    assert over_steps(schedule("", base=0.3), 3) == [0.3, 0.3, 0.3]


def test_exponential_staircase_and_smooth_and_its_floor():
    s = schedule("exponential_decay_learning_rate { decay_size: 2 decay_factor: 0.5 min_learning_rate: 0.2 }")
    assert over_steps(s, 7) == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.2]
    smooth = schedule("exponential_decay_learning_rate { decay_size: 2 decay_factor: 0.25 staircase: false }")
    assert over_steps(smooth, 3) == [1, 0.5, 0.25]


def test_warm_up_wastes_no_step_and_ends_at_the_base():
    # 4 steps: a quarter of the way after the first, all of it at the fourth; then the decay counts from 0
    s = schedule("exponential_decay_learning_rate { decay_size: 1 decay_factor: 0.5 warmup_size: 4 }")
    assert over_steps(s, 6) == [0.25, 0.5, 0.75, 1, 1, 0.5]
    s = schedule("cosine_annealing_learning_rate { T_max: 2 warmup_size: 2 warmup_learning_rate: 0.2 }")
    assert over_steps(s, 5) == pytest.approx([0.6, 1, 1, 0.5, 0])


def test_manual_steps_change_after_that_many_steps():
    s = schedule(
        "manual_step_learning_rate { schedule_sizes: 2 schedule_sizes: 3 learning_rates: .5 learning_rates: .1 }"
    )
    assert over_steps(s, 5) == [1, 1, 0.5, 0.1, 0.1]
    s = schedule("manual_step_learning_rate { schedule_sizes: 2 learning_rates: 3 warmup: true }")
    assert over_steps(s, 4) == [1, 2, 3, 3]


def test_cosine_is_half_way_in_the_middle_and_stays_at_the_end():
    s = schedule("cosine_annealing_learning_rate { T_max: 4 min_learning_rate: 0.2 }")
    quarter = 0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 4))
    assert over_steps(s, 6) == pytest.approx([1, quarter, 0.6, 1.2 - quarter, 0.2, 0.2])


def test_cosine_takes_the_whole_training_after_warm_up_by_default():
    s = schedule("cosine_annealing_learning_rate { warmup_size: 2 }", horizon=Horizon(steps=6))
    assert over_steps(s, 6)[2:] == pytest.approx(
        [1, 0.5 + 0.5 * math.cos(math.pi / 4), 0.5, 0.5 - 0.5 * math.cos(math.pi / 4)]
    )
    by_epoch = schedule(
        "cosine_annealing_learning_rate { warmup_size: 2 by_epoch: true }", horizon=Horizon(steps=600, epochs=4)
    )
    assert [by_epoch(100 * e + 7, e) for e in range(4)] == pytest.approx([0.5, 1, 1, 0.5])


RECIPE = "cosine_annealing_learning_rate { warmup_size: 2 min_learning_rate: 1e-4 by_epoch: true %s }"


def test_the_recipe_of_mamba4rec_v2_epoch_by_epoch():
    # Its training script: (e + 1) / 2 of 1e-3 for e < 2, then half a cosine to 10 % over the 18 epochs left of 20.
    s = schedule(RECIPE % "", base=1e-3, horizon=Horizon(steps=20 * 7, epochs=20, steps_per_epoch=7))
    expected = [5e-4, 1e-3] + [1e-4 + 9e-4 * 0.5 * (1 + math.cos(math.pi * (e - 2) / 18)) for e in range(2, 20)]
    assert [s(7 * e + 3, e) for e in range(20)] == pytest.approx(expected)


def test_in_every_step_the_rate_of_epochs_moves_within_them():
    s = schedule(RECIPE % "every_step: true", base=1e-3, horizon=Horizon(steps=24, epochs=6, steps_per_epoch=4))
    rates = [s(step, step // 4) for step in range(24)]
    # Eighths in the warm-up of 8 steps, all of it in the last; then 16 steps of cosine, half way after 8.
    assert rates[:9] == pytest.approx([1e-3 * k / 8 for k in range(1, 9)] + [1e-3])
    assert rates[16] == pytest.approx((1e-3 + 1e-4) / 2)
    assert rates[8:] == sorted(rates[8:], reverse=True)
    assert rates[23] > 1e-4


def test_in_every_step_all_sizes_are_epochs():
    horizon = Horizon(steps=20, epochs=10, steps_per_epoch=2)
    s = schedule(
        "exponential_decay_learning_rate { decay_size: 2 decay_factor: .25 staircase: false by_epoch: true "
        "every_step: true }",
        horizon=horizon,
    )
    assert over_steps(s, 5) == pytest.approx([1, 0.5**0.5, 0.5, 0.5**1.5, 0.25])
    s = schedule(
        "cosine_annealing_warm_restarts_learning_rate { T_0: 1 by_epoch: true every_step: true }", horizon=horizon
    )
    assert over_steps(s, 4) == pytest.approx([1, 0.5, 1, 0.5])


def test_every_step_needs_epochs_of_a_known_length():
    with pytest.raises(ConfigError, match="every_step without by_epoch: the sizes are steps already; add by_epoch"):
        schedule("cosine_annealing_learning_rate { T_max: 2 every_step: true }", horizon=Horizon(6, 3, 2))
    with pytest.raises(ConfigError, match="the number of steps of an epoch is not known"):
        schedule(RECIPE % "every_step: true", horizon=Horizon(epochs=6))


def test_warm_restarts_start_anew_with_longer_periods():
    s = schedule("cosine_annealing_warm_restarts_learning_rate { T_0: 2 T_mult: 2 }")
    eighth = 0.5 * (1 + math.cos(math.pi / 4))
    assert over_steps(s, 7) == pytest.approx([1, 0.5, 1, eighth, 0.5, 1 - eighth, 1])
    s = schedule("cosine_annealing_warm_restarts_learning_rate { T_0: 2 }")
    assert over_steps(s, 4) == pytest.approx([1, 0.5, 1, 0.5])


def test_a_base_of_zero_freezes_whatever_the_schedule_says():
    s = schedule("manual_step_learning_rate { schedule_sizes: 1 learning_rates: 3 }", base=0.0)
    assert over_steps(s, 3) == [0, 0, 0]


def test_world_scaling_scales_the_whole_curve():
    s = schedule("cosine_annealing_learning_rate { T_max: 2 min_learning_rate: 0.1 }", scale=2.0)
    assert over_steps(s, 3) == pytest.approx([2, 1.1, 0.2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cosine_annealing_learning_rate {}", "T_max has no default"),
        ("cosine_annealing_learning_rate { T_max: 0 }", "T_max must be positive"),
        ("exponential_decay_learning_rate {}", "decay_size must be positive"),
        ("manual_step_learning_rate { schedule_sizes: 3 }", "1 schedule_sizes and 0 learning_rates"),
        (
            "manual_step_learning_rate { schedule_sizes: [3, 2] learning_rates: [1, 1] }",
            "must be positive and rise",
        ),
        ("cosine_annealing_warm_restarts_learning_rate { T_0: 0 }", "T_0 must be positive"),
    ],
)
def test_wrong_schedules_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        schedule(text)


def test_a_warm_up_rate_without_a_warm_up_is_told(caplog):
    schedule("cosine_annealing_learning_rate { T_max: 3 warmup_learning_rate: 0.1 }")
    assert "no effect without warmup_size" in caplog.text


def test_a_warm_up_longer_than_the_training_is_refused():
    with pytest.raises(ConfigError, match="leaves nothing of the 5 steps"):
        schedule("cosine_annealing_learning_rate { warmup_size: 5 }", horizon=Horizon(steps=5))

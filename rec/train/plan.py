"""When the training stops, saves and evaluates: `train_config` checked once, and asked at every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rec.config.errors import ConfigError
from rec.train.schedules import Horizon

if TYPE_CHECKING:
    from rec.protos import train_pb2


@dataclass(frozen=True)
class Plan:
    """The course of a training.

    Attributes:
        num_steps, num_epochs: one of them is set, the other 0.
        save_steps, save_epochs: save every so many; at most one is not 0.
        eval_epochs: evaluate every so many epochs; 0 evaluates at every save.
        accumulate: micro-batches of an optimizer step.
    """

    num_steps: int
    num_epochs: int
    save_steps: int
    save_epochs: int
    eval_epochs: int
    accumulate: int

    @classmethod
    def of(cls, config: train_pb2.TrainConfig) -> Plan:
        """From the config; num_steps and num_epochs exclude each other."""
        if config.num_steps and config.num_epochs:
            raise ConfigError(
                f"num_steps {config.num_steps} and num_epochs {config.num_epochs} are both set",
                config,
                "num_steps",
                hint="drop one",
            )
        if not config.num_steps and not config.num_epochs:
            raise ConfigError(
                "neither num_steps nor num_epochs says how long to train", config, hint="set num_epochs: 1"
            )
        return cls(
            num_steps=config.num_steps,
            num_epochs=config.num_epochs,
            save_steps=0 if config.save_checkpoints_epochs else config.save_checkpoints_steps,
            save_epochs=config.save_checkpoints_epochs,
            eval_epochs=config.eval_every_epochs,
            accumulate=max(1, config.gradient_accumulation_steps),
        )

    def horizon(self, steps_per_epoch: int | None) -> Horizon:
        """Steps and epochs of the whole training, as far as known."""
        if self.num_epochs:
            steps = steps_per_epoch * self.num_epochs if steps_per_epoch else None
            return Horizon(steps, self.num_epochs, steps_per_epoch)
        epochs = -(-self.num_steps // steps_per_epoch) if steps_per_epoch else None
        return Horizon(self.num_steps, epochs, steps_per_epoch)

    def is_last(self, step: int, *, epochs: int) -> bool:
        """Whether the training is complete after `step` steps and `epochs` whole epochs."""
        return step >= self.num_steps if self.num_steps else epochs >= self.num_epochs

    def saves(self, step: int, *, epochs: int, ended: bool) -> bool:
        """Whether to save after `step`; `ended` says that it ended an epoch, the `epochs`-th."""
        return (
            self.is_last(step, epochs=epochs)
            or bool(self.save_steps and step % self.save_steps == 0)
            or bool(ended and self.save_epochs and epochs % self.save_epochs == 0)
            or bool(ended and self.eval_epochs and epochs % self.eval_epochs == 0)
        )

    def evaluates(self, step: int, *, epochs: int, ended: bool) -> bool:
        """Whether to evaluate after `step`. Every evaluated step is also a saved one."""
        if self.is_last(step, epochs=epochs):
            return True
        if self.eval_epochs:
            return ended and epochs % self.eval_epochs == 0
        return self.saves(step, epochs=epochs, ended=ended)

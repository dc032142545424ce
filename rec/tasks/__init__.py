"""Tasks: where predictions meet labels, as named losses, metrics and served outputs."""

from rec.tasks.base import Task
from rec.tasks.build import build_tasks
from rec.tasks.evaluation import Evaluation, Measured, TrainMetrics
from rec.tasks.ranking import RankingTask
from rec.tasks.retrieval import RetrievalTask

__all__ = ["Evaluation", "Measured", "RankingTask", "RetrievalTask", "Task", "TrainMetrics", "build_tasks"]

"""Metrics: sums or rows gathered over batches and ranks, each named by its message in `MetricConfig`."""

from rec.metrics.base import METRICS, Histogram, Metric, RowMetric, SumMetric

__all__ = ["METRICS", "Histogram", "Metric", "RowMetric", "SumMetric"]

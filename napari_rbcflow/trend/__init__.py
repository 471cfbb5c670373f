"""A patient over time: sessions over the dates, the patient's own baseline, and what lies below it."""

from napari_rbcflow.trend.baseline import LEAST_DAYS, Baseline, Below
from napari_rbcflow.trend.export import as_csv
from napari_rbcflow.trend.judge import Choices, Trend, TrendRun, Use, summary, trend_of
from napari_rbcflow.trend.plot import as_png
from napari_rbcflow.trend.records import Gathered, Record, Span, gather, parse_span

__all__ = [
    "LEAST_DAYS",
    "Baseline",
    "Below",
    "Choices",
    "Gathered",
    "Record",
    "Span",
    "Trend",
    "TrendRun",
    "Use",
    "as_csv",
    "as_png",
    "gather",
    "parse_span",
    "summary",
    "trend_of",
]

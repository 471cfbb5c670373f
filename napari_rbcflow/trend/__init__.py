"""A patient over time: sessions over the dates, the patient's own baseline, and what lies below it."""

from napari_rbcflow.trend.baseline import LEAST_DAYS, Baseline
from napari_rbcflow.trend.gathering import Gathered, Record, gather
from napari_rbcflow.trend.judging import Below
from napari_rbcflow.trend.picture import as_png
from napari_rbcflow.trend.spans import Span, parse_span
from napari_rbcflow.trend.table import as_csv
from napari_rbcflow.trend.trend import Choices, Trend, TrendRun, Use, trend_of
from napari_rbcflow.trend.words import summary

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

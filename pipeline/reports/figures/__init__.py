"""Figures of a study: each answers a question, with a sentence on where to look."""

from pipeline.reports.figures.data import write_data
from pipeline.reports.figures.intervals import draw_comparison
from pipeline.reports.figures.pictures import Picture, Shown, pictures, write_figures
from pipeline.reports.figures.style import svg

__all__ = ["Picture", "Shown", "draw_comparison", "pictures", "svg", "write_data", "write_figures"]

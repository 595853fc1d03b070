"""Tracking: a study and its trials where people look. MLflow is imported where it is used."""

from pipeline.tracking.base import (
    Files,
    InMemoryTracker,
    Input,
    Metrics,
    StudyRun,
    Tables,
    Tags,
    Tracker,
)
from pipeline.tracking.uris import sqlite_uri

__all__ = [
    "Files",
    "InMemoryTracker",
    "Input",
    "Metrics",
    "StudyRun",
    "Tables",
    "Tags",
    "Tracker",
    "sqlite_uri",
]

"""Proposals: which allocation to try next, and when to stop. The only importer of Optuna."""

from pipeline.proposals.journal import read_trials
from pipeline.proposals.overview import Overview, overview
from pipeline.proposals.proposals import Baselines, Proposals
from pipeline.proposals.seal import seal_journal

__all__ = ["Baselines", "Overview", "Proposals", "overview", "read_trials", "seal_journal"]

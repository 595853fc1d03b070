"""Proposals: which allocation to try next, and when to stop. The only importer of Optuna."""

from pipeline.proposals.journal import seal_journal
from pipeline.proposals.proposals import Baselines, Proposals, read_trials

__all__ = ["Baselines", "Proposals", "read_trials", "seal_journal"]

"""Clusters: where trials run. Ray is imported where it is used, from `pipeline.cluster.ray`."""

from pipeline.cluster.base import Cluster, InProcess
from pipeline.cluster.feed import ProposalFeed

__all__ = ["Cluster", "InProcess", "ProposalFeed"]

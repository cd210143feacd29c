"""Scores chunks of jobs: turns rows and a model into results."""

from inferd.streams.jobs.scoring.pinned_model import pin_in
from inferd.streams.jobs.scoring.results import ChunkDraft
from inferd.streams.jobs.scoring.scoring import ChunkBatch, ChunkScorer, ChunkWork, ProcessBatch, chunk_work

__all__ = ["ChunkBatch", "ChunkDraft", "ChunkScorer", "ChunkWork", "ProcessBatch", "chunk_work", "pin_in"]

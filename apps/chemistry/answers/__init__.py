"""What a chemist gets from a trained model."""

from apps.chemistry.answers.explain import Explanation, draw, explain
from apps.chemistry.answers.pairs import MatchedPair, matched_pairs, write_pairs
from apps.chemistry.answers.predict import predict_file

__all__ = [
    "Explanation",
    "MatchedPair",
    "draw",
    "explain",
    "matched_pairs",
    "predict_file",
    "write_pairs",
]

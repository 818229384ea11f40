"""What a chemist gets from a trained model."""

from apps.chemistry.answers.explain import Explanation, draw, explain
from apps.chemistry.answers.predict import predict_file

__all__ = ["Explanation", "draw", "explain", "predict_file"]

"""What a chemist gets from a trained model."""

from apps.chemistry.answers.predict import predict_file

__all__ = ["predict_file"]

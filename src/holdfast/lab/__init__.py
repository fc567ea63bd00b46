"""A small model and its tasks, on which Holdfast can be tried at once, without a download."""

from pathlib import Path

TARGET_STEPS = (3, 4, 5)  # of the problems that the lab fine-tunes on and measures
TRAIN_PROBLEMS = 600
TEST_PROBLEMS = 200
TEST_REQUESTS = 100  # of each kind, hazardous and benign


def model_folder() -> Path:
    """Return the folder of the lab's base model, a transformers checkpoint with its tokenizer."""
    return Path(__file__).parent / "model"

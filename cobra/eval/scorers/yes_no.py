"""Scores of questions with two answers: yes and no, true and false."""

import re
from collections.abc import Sequence
from statistics import mean

from cobra.eval.predictions import Prediction


def read_word(text: str, yes: str = "yes", no: str = "no") -> bool | None:
    """Whether a text says the one word; None where it says neither, or both.

    Words count, not letters: `notice` is no `no`, which VLMEvalKit took for one (VLMEvalKit#73).
    """
    words = set(re.findall(r"[a-z]+", text.lower()))
    return None if (yes in words) == (no in words) else yes in words


def two_class_scores(said: Sequence[bool | None], true: Sequence[bool]) -> dict[str, float]:
    """Accuracy, precision, recall, F1 of `yes` and its share among the answers, in per cent.

    Args:
        said: what was answered; None, neither of the two, is never right.
        true: what is right.
    """
    hits = sum(s is True and t for s, t in zip(said, true, strict=True))
    precision, recall = hits / (said.count(True) or 1), hits / (sum(true) or 1)
    return {
        "accuracy": 100 * mean(s is t for s, t in zip(said, true, strict=True)),
        "precision": 100 * precision,
        "recall": 100 * recall,
        "f1": 100 * 2 * precision * recall / ((precision + recall) or 1),
        "yes_ratio": 100 * said.count(True) / len(said),
    }


def areas(predictions: Sequence[Prediction], true: Sequence[bool], yes: str, no: str) -> dict[str, float]:
    """Area under the ROC curve and average precision of choices by likelihood, in per cent.

    A prediction's certainty is the probability of `yes` among the two, as in vlm-evaluation. Empty where
    the model answered in words, or where all true answers are the same, which leaves both undefined.

    Args:
        predictions: with the scores of two choices, however these are capitalised.
        true: what is right.
        yes: the one choice, in lower case.
        no: the other.
    """
    # ShapesVQA's choices are small
    scores = [{choice.lower(): score for choice, score in p.scores.items()} for p in predictions]
    if len(set(true)) < 2 or not all({yes, no} <= given.keys() for given in scores):
        return {}
    # takes a second
    from sklearn.metrics import average_precision_score, roc_auc_score

    # the probability grows with it, and does not round to 1
    margins = [given[yes] - given[no] for given in scores]
    return {
        "auroc": 100 * float(roc_auc_score(true, margins)),
        "aupr": 100 * float(average_precision_score(true, margins)),
    }

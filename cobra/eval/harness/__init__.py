"""Community harnesses that can ask a model of this project: lmms-eval, VLMEvalKit, lm-evaluation-harness."""

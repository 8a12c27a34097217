"""ShapesVQA, the embedded data set: drawn scenes with real digits, balanced so that only looking helps."""

"""ShapesVQA, the embedded data set: procedural scenes with real digits, balanced so that only looking helps."""

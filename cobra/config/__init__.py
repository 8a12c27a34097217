"""class_path trees: checked, built, written as config.json."""

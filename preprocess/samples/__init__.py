"""CSVs of photos, classes and answers -> the sample table: stages, folds, splits, classes that are large enough."""

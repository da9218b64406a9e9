"""Tables of photos, classes and solutions -> the sample table: classes, folds, splits."""

"""Files from Kaggle: downloads that resume, are checked, and never print a token."""

"""What those who have a run do with it: embed splits, ask questions, answer photos."""

"""Training: options, schedules, optimizer, the parts of a stage and its files. The loop is in train.py."""

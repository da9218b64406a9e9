"""What trains: options, schedules, optimizer, the parts of a stage and what it leaves on disk. The loop is train.py."""

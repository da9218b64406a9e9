"""Pages of HTML about runs, datasets and answers, and their charts."""

"""HTML pages about runs, datasets and answers: a module and a template each. A page is one file and opens offline."""

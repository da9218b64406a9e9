"""Photos for the demo, rendered from pictures that Python packages bring."""

"""Ground that every room stands on: commands' errors and progress, files that appear whole. Imports no room."""

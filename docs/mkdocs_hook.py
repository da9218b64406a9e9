"""For mkdocs.yml: pages have the places in the site that they have in the repository, so their links hold in both."""
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

OUTSIDE = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"]


def on_files(files: Files, config: Any) -> Files:
    """The theme's files, those of docs/ (as docs/…) and the pages that lie elsewhere; README.md is the home page."""
    root = Path(config.docs_dir).parent
    names = [f"docs/{file.src_uri}" for file in files.documentation_pages() + files.media_files()
             if file.src_dir == config.docs_dir and file.src_uri.endswith((".md", ".png", ".jpg"))]
    theme = [file for file in files if file.src_dir != config.docs_dir]
    return Files(theme + [File(name, str(root), config.site_dir, config.use_directory_urls)
                          for name in OUTSIDE + names])

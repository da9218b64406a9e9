"""YAML presets: what differs from the defaults, or from another preset, which the key `config` names.

    config: first-place-1-seresnext101.yaml
    head: {margin: 0.3}

The same as giving both on the command line, one --config after the other.
"""
from pathlib import Path
from typing import Any

import yaml

from arcshard.console import UserError


def read_preset(path: Path) -> dict[str, Any]:
    """A preset's options, over those of the preset that it names, whose path is relative to its own.

    Sections are merged field by field, stages as a whole. Raises UserError for what is no preset.
    """
    files, options = [path.resolve()], _read(path)
    while base := options.pop("config", None):
        files.append((files[-1].parent / base).resolve())
        if files[-1] in files[:-1]:
            raise UserError(f"presets must not name each other in a circle, but {path} comes back to {files[-1].name}: "
                            "take one key config out")
        options = _over(_read(files[-1]), options)
    return options


def _read(path: Path) -> dict[str, Any]:
    try:
        options = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"a preset must be a YAML file of options, but {path} is none "
                        f"({' '.join(str(error).split())})") from None
    if not isinstance(options, dict) or not isinstance(options.get("config", ""), str):
        raise UserError(f"a preset must be a mapping of sections, its key config a file's name, but {path} is none")
    return options


def _over(base: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    merged = base | options
    for section in base.keys() & options.keys() - {"stages"}:
        if isinstance(base[section], dict) and isinstance(options[section], dict):
            merged[section] = base[section] | options[section]
    return merged

"""YAML presets: what differs from the defaults, or from the preset that the key `config` names.

    config: first-place-1-seresnext101.yaml
    head: {margin: 0.3}

This is the same as giving both on the command line, one --config after the other.
"""
from pathlib import Path
from typing import Any

import yaml

from arcshard.console import UserError


def read_preset(path: Path) -> dict[str, Any]:
    """A preset's options on top of those of the preset that it names, whose path is relative to its own.

    Sections are merged field by field, stages as a whole. Raises UserError for a file that is not a preset.
    """
    files, options = [path.resolve()], _read(path)
    while base := options.pop("config", None):
        files.append((files[-1].parent / base).resolve())
        if files[-1] in files[:-1]:
            raise UserError(f"the presets named by {path} form a circle through {files[-1].name}: "
                            "remove one of their config keys")
        options = _over(_read(files[-1]), options)
    return options


def _read(path: Path) -> dict[str, Any]:
    try:
        options = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a preset, a YAML file of options ({' '.join(str(error).split())})") from None
    if not isinstance(options, dict) or not isinstance(options.get("config", ""), str):
        raise UserError(f"{path} is not a preset: give a mapping of sections, with a file name under the key config")
    return options


def _over(base: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    merged = base | options
    for section in base.keys() & options.keys() - {"stages"}:
        if isinstance(base[section], dict) and isinstance(options[section], dict):
            merged[section] = base[section] | options[section]
    return merged

"""YAML presets: what differs from the defaults, or from the preset that the key `config` names.

    config: first-place-1-seresnext101.yaml
    head: {margin: 0.3}

This is the same as giving both on the command line, one --config after the other. A section is a mapping of fields to
values, `stages` a mapping of names to options that differ from the run's:

    stages: {low: {size: 256}, high: {size: 448, head: {margin: 0.4}}}
"""
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from arcshard.console import UserError, expand_home
from arcshard.untrusted import parse_yaml

LONGEST = 60  # characters of a value in a message


def read_preset(path: Path, sections: Collection[str] = ()) -> dict[str, Any]:
    """A preset's options on top of those of the preset that it names, whose path is relative to its own.

    Sections are merged field by field, stages as a whole. Raises UserError for a file that is not a preset, and for one
    of `sections`, or a stage, that is no mapping.
    """
    path = preset_file(path)
    files, options = [path.resolve()], _read(path, sections)
    while base := options.pop("config", None):
        files.append((files[-1].parent / expand_home(base)).resolve())
        if files[-1] in files[:-1]:
            raise UserError(f"the presets named by {path} form a circle through {files[-1].name}: "
                            "remove one of their config keys")
        options = _over(_read(files[-1], sections), options)
    return options


def preset_file(path: str | Path) -> Path:
    """The file itself or, where there is none, one that came with arcshard, as configs/demo.yaml does."""
    given = Path(expand_home(path))
    ours = Path(__file__).parents[1] / given
    return ours if not given.exists() and ours.is_file() else given


def with_stage(run: dict[str, dict[str, Any]], name: str, stage: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The run's sections with a stage's options on top: mappings are sections, other values fields of train.

    Raises UserError for a section that is no mapping.
    """
    merged = {section: {**fields} for section, fields in run.items()}
    for key, value in stage.items():
        if key in run:
            merged[key] |= _mapping(value, f"stages.{name}.{key}")
        elif isinstance(value, dict):
            merged[key] = value
        else:
            merged["train"][key] = value
    return merged


def _mapping(value: Any, name: str, of: str = "its fields to values") -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{name} is {shown(value)}: give a mapping of {of}")
    return value


def _read(path: Path, sections: Collection[str]) -> dict[str, Any]:
    try:
        options = parse_yaml(path.read_text()) or {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a preset, a YAML file of options ({' '.join(str(error).split())})") from None
    return checked(options, str(path), sections)


def checked(options: Any, where: str, sections: Collection[str]) -> dict[str, Any]:
    """The options of one preset, names of stages as text. Raises UserError where there should be a mapping."""
    if not isinstance(options, dict) or not isinstance(options.get("config", ""), str):
        raise UserError(f"{where} is not a preset: give a mapping of sections, with a file name under the key config")
    for section in options.keys() & {*sections}:
        _mapping(options[section], f"{where}: {section}")
    if "stages" not in options:
        return options
    stages = _mapping(options["stages"], f"{where}: stages", "names to options")
    return options | {"stages": {str(name): _mapping(stage, f"{where}: stages.{name}", "its options to values")
                                 for name, stage in stages.items()}}


def shown(value: Any) -> str:
    """A value as YAML has it, on one line and not too long."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _over(base: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    merged = base | options
    for section in base.keys() & options.keys() - {"stages"}:
        if isinstance(base[section], dict) and isinstance(options[section], dict):
            merged[section] = base[section] | options[section]
    return merged

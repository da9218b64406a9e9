"""Command line and YAML presets from dataclasses: the docstring under a field is its help."""
import difflib
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from arcshard import renamed
from arcshard.console import UserError
from arcshard.presets import read_preset

set_parsing_settings(docstring_parse_attribute_docstrings=True)


class ConfigParser(ArgumentParser):
    """jsonargparse that refuses a wrong key or value in one sentence, with the nearest existing key."""

    context = ""
    """Begins the sentence where the values are not from the command line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        sentence = re.sub(r"Expected a <class '(\w+)'>", r"Expected \1", " ".join(message.split()))
        sentence = re.sub(r"Expected a typing\.Literal(\[.*?\])", r"Expected one of \1", sentence)
        hint = self._renamed(sentence) or self._nearest(sentence)
        self.exit(2, f"{self.prog}: {self.context}{sentence}{hint}; see {self.prog} --help\n")

    def _renamed(self, sentence: str) -> str:
        for option, names in renamed.VALUES.items():
            for old, new in names.items():
                if f'"{option}"' in sentence and sentence.endswith(f" {old}"):
                    return f"; {old} is now {new}"
        return ""

    def _nearest(self, sentence: str) -> str:
        group = re.search(r"Group '([\w.]+)' does not accept option '(\w+)'", sentence)
        unknown = re.search(r"(?:unrecognized arguments: --|Option ')([\w.]+)", sentence)
        wrong = ".".join(group.groups()) if group else unknown[1] if unknown else None
        known = [a.dest for a in self._actions]
        close = difflib.get_close_matches(wrong, known, 1) if wrong else []
        return f"; did you mean {close[0]}?" if close else ""

    def parse_path(self, path: Any, *args: Any, **options: Any) -> Namespace:
        """Called by jsonargparse for each --config."""
        return self.parse_object(read_preset(Path(path)), env=False, defaults=False, _skip_validation=True)

    def read(self, words: list[str]) -> Namespace:
        """Parse the command line: checked values, no dataclasses yet. Raises UserError for an invalid preset."""
        try:
            return self.parse_args(words)
        except (ValueError, TypeError) as error:  # YAML that is no mapping or no text
            raise UserError(" ".join(str(error).split())) from error

    def build(self, values: Namespace, context: str = "") -> Namespace:
        """Make dataclasses of checked values. Raises UserError with the dataclass's own sentence."""
        try:
            return self.instantiate(values)
        except (ValueError, TypeError) as error:  # a dataclass's refusal
            raise UserError(context + " ".join(str(error).split())) from error

    def build_object(self, values: dict[str, Any], context: str) -> Namespace:
        """Check the values and make dataclasses of them. context: how a sentence begins about what is wrong."""
        self.context = context
        return self.build(self.parse_object(values), context)


def as_plain(**sections: Any) -> dict[str, Any]:
    """Dataclasses by name -> nested dicts of numbers, strings and lists, as a checkpoint and YAML hold them."""
    return {name: {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(section).items()}
            for name, section in sections.items()}


def differences(old: dict[str, Any], new: dict[str, Any], ignored: set[str]) -> list[str]:
    """What changed between two configs of `as_plain`, one phrase a field; `ignored` holds section.field names."""
    keys = {f"{s}.{k}" for config in (old, new) for s, section in config.items() for k in section} - ignored
    value = lambda config, key: config.get(key.partition(".")[0], {}).get(key.partition(".")[2])
    return [f"{key} was {value(old, key)!r} and is {value(new, key)!r}" for key in sorted(keys)
            if value(old, key) != value(new, key)]

"""Command line and YAML presets from dataclasses: the docstring under a field is its help."""
import difflib
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from arcshard import renamed
from arcshard.console import UserError, fail
from arcshard.presets import checked, preset_file, read_preset, shown
from arcshard.untrusted import parse_yaml

set_parsing_settings(docstring_parse_attribute_docstrings=True)
AS_PRESET = {"env": False, "defaults": False, "_skip_validation": True}  # as jsonargparse reads a --config


class ConfigParser(ArgumentParser):
    """jsonargparse that refuses a wrong name or value in one sentence: where, what was given, what fits or is near."""

    context = ""
    """Begins the sentence where the options are not from the command line."""
    options: dict[str, Any] = {}
    """Those of a file or stage while it is checked."""
    words: list[str] = []
    """The command line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        sentence = " ".join(message.split())
        if misfit := re.search(r'Parser key "([\w.]+)"', sentence):
            self._refuse(self._misfit(misfit[1]))
        if group := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", sentence):
            self._refuse(self._unknown(".".join(group.groups())))
        if flag := re.match(r"unrecognized arguments: --([\w.]+)", sentence):
            self._refuse(self._unknown(flag[1]))
        self._refuse(sentence)

    def _refuse(self, sentence: str) -> NoReturn:
        fail(f"{self.prog}: {self.context}{sentence}; see {self.prog} --help", 2)

    def _unknown(self, name: str) -> str:
        """The sentence about an option that does not exist: one of that name in another section, or a similar one."""
        known = [*self.types()]
        close = [other for other in known if other.endswith(f".{name.rpartition('.')[2]}")]
        close += [other for other in known if other.startswith(name)] + difflib.get_close_matches(name, known, 1)
        return f"there is no option {name}" + (f" (did you mean {close[0]}?)" if close else "")

    def _misfit(self, name: str) -> str:
        """The sentence about an option whose value is not of its type."""
        flag, given = self._given(name)
        kind = self.types()[name]
        if new := renamed.VALUES.get(name, {}).get(given):
            return f"{name} {given} is now {new}: give {new}"
        if flag != name:
            if get_origin(kind) is not dict:
                return self._unknown(flag)
            kind = get_args(kind)[1]
        return f"{flag} is {given or 'empty'}: give {described(kind)}"

    def _given(self, name: str) -> tuple[str, str]:
        """The name of an option as it was given, longer for an entry of a mapping, and its value as text."""
        if self.options:
            section, _, field = name.partition(".")
            return name, shown(self.options[name] if name in self.options else self.options[section][field])
        words = [word for given in self.words for word in (given.split("=", 1) if given[:2] == "--" else [given])]
        return next(((flag[2:], value) for flag, value in zip(words[-2::-1], words[::-1])
                     if f"{flag}.".startswith(f"--{name}.")), (name, ""))

    def types(self) -> dict[str, Any]:
        """The type of each option by name; a section is an option of no type."""
        return {action.dest: getattr(action, "_typehint", bool if action.nargs == 0 else None)
                for action in self._actions} | {"config": Path}

    def _parse(self, options: dict[str, Any], context: str, **how: Any) -> Namespace:
        self.context, self.options = context, options
        self._check(options)
        parsed = self.parse_object(options, **how)
        self.context, self.options = "", {}
        return parsed

    def _check(self, options: dict[str, Any]) -> None:
        """Refuse what jsonargparse takes: unknown names, null for any type as "not given", any value of a flag."""
        types = self.types()
        for section, fields in options.items():
            parts = fields if any(name.startswith(f"{section}.") for name in types) else {"": fields}
            for name, value in ((f"{section}.{field}".rstrip("."), value) for field, value in parts.items()):
                if name not in types:
                    self._refuse(self._unknown(name))
                wrong_flag = types[name] is bool and not isinstance(value, bool)
                if wrong_flag or value is None and type(None) not in get_args(types[name]):
                    self._refuse(self._misfit(name))

    def parse_path(self, path: Any, *args: Any, **options: Any) -> Namespace:
        """Called by jsonargparse for each --config."""
        return self._parse(read_preset(Path(path), self._sections()), f"{path}: ", **AS_PRESET)

    def parse_string(self, content: str, *args: Any, **options: Any) -> Namespace:
        """Called by jsonargparse for each --config that is a mapping instead of a file."""
        try:
            options = parse_yaml(content)
        except ValueError as error:
            raise UserError(f"--config is neither a file nor a mapping in YAML ({error})") from None
        return self._parse(checked(options, "--config", self._sections()), "--config: ", **AS_PRESET)

    def _sections(self) -> set[str]:
        return {name.partition(".")[0] for name in self.types() if "." in name}

    def read(self, words: list[str]) -> Namespace:
        """Parse the command line: checked values, no dataclasses yet. Raises UserError for an invalid preset."""
        self.words = [*_presets_found(words)]
        return self.parse_args(self.words)

    def build(self, values: Namespace, context: str = "") -> Namespace:
        """Make dataclasses of checked values. Raises UserError with the dataclass's own sentence."""
        try:
            return self.instantiate(values)
        except ValueError as error:  # a dataclass's refusal
            raise UserError(context + " ".join(str(error).split())) from error

    def build_object(self, values: dict[str, Any], context: str) -> Namespace:
        """Check the values and make dataclasses of them. context: how a sentence begins about what is wrong."""
        return self.build(self._parse(values, context), context)


def _presets_found(words: list[str]) -> Iterator[str]:
    """The words, each file of --config as `preset_file` finds it."""
    for before, word in zip(["", *words], words):
        option, equals, value = word.rpartition("=")
        if value.endswith(".yaml") and (before == "--config" or option == "--config"):
            yield f"{option}{equals}{preset_file(value)}"
        else:
            yield word


def described(kind: Any) -> str:
    """What fits a type, for a message: "a number or null", "one of a, b, c"."""
    args = get_args(kind)
    if get_origin(kind) is Literal:
        return f"one of {', '.join(args)}" if len(args) > 1 else args[0]
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(map(described, args))
    if get_origin(kind) is list or ... in args:
        return f"a list of {described(args[0]).removeprefix('a ').removeprefix('one of ')}" + "s" * (args[0] is float)
    if get_origin(kind) is tuple:
        return f"a list of {len(args)} {'whole ' if int in args else ''}numbers"
    if get_origin(kind) is dict:
        return "a mapping" if Any in args else f"a mapping of names to {described(args[1]).removeprefix('a ')}s"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null",
            Path: "a YAML file", None: "its fields one by one"}[kind]


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

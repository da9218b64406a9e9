"""Write docs/configuration.md: the options of train.py and of the steps of pipelines, as their classes explain them.

python docs/configuration.py
"""
import re
from collections.abc import Iterator, Set
from pathlib import Path

from arcshard.config import ConfigParser, described
from arcshard.console import Parser, run
from arcshard.files import whole_file
from arcshard.presets import shown
from retrieval.steps import STEPS
from training.config import StageOptions, may_change, option_parser

PAGE = Path(__file__).with_suffix(".md")
TOP = """\
# Every option

```
python train.py --help                                                    # the same in a terminal
python train.py --config configs/demo.yaml --data data/demo/dataset --out runs/other --train.lr 0.1 --head.margin 0.2
python docs/configuration.py                                              # writes this page
```

`--train.lr 0.1` on the command line is `train: {lr: 0.1}` in a preset (`--config`, YAML); the last one given wins.
[Training](training.md) explains which options go together. Options marked * may change when a run continues.

## Options of train.py
"""
STEPS_TOP = """
## Steps of pipelines

A [pipeline](answers.md) is a list of these in YAML, such as `[{search: {k: 20}}, {vote: {k: 5, power: 8}}]`.
"""


def main() -> None:
    Parser(description=__doc__).parse_args()
    with whole_file(PAGE) as f:
        f.write(page().encode())
    print(PAGE)


def page() -> str:
    """The whole page, in Markdown."""
    stage, steps = ConfigParser(), ConfigParser()
    stage.add_class_arguments(StageOptions, "stages.NAME")
    for name, step in STEPS.items():
        steps.add_class_arguments(step, name)
    return "".join([TOP, *sections(option_parser(), may_change(False)), *sections(stage), STEPS_TOP, *sections(steps)])


def sections(parser: ConfigParser, changing: Set[str] = frozenset()) -> Iterator[str]:
    """Of each dataclass that the parser reads: its name, what it is, and a table of its fields."""
    types = parser.types()
    for section, group in parser.groups.items():
        yield f"\n### {section}\n\n{cell(group.title)}.\n"
        options = [action for action in group._group_actions if action.dest != section]
        yield "\n| option | value | default | meaning |\n|---|---|---|---|\n" if options else ""
        for option in options:
            name = f"`{option.dest.removeprefix(f'{section}.')}`" + " *" * (option.dest in changing)
            default = "" if option.required else f"`{shown(option.default)}`"
            yield f"| {cell(name)} | {cell(described(types[option.dest]))} | {default} | {cell(option.help or '')} |\n"


def cell(text: str) -> str:
    """Text as a table of Markdown holds it, with links to the pages of docs that it names."""
    text = re.sub(r"([|*<])", r"\\\1", " ".join(text.split()))
    return re.sub(r"\bdocs/([\w-]+\.md)", r"[\1](\1)", text)


if __name__ == "__main__":
    run(main)

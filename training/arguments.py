"""The command line of train.py: sections of options, and stages that differ from the run in some of them."""
from typing import Any

from jsonargparse import Namespace

from arcshard.config import ConfigParser
from loader import LoaderConfig, Selection, View
from model import HeadConfig, ModelConfig
from shards import CacheConfig
from training import stages
from training.continuing import Stages
from training.stages import ONLY, merge, options, split_flags
from training.train_config import TrainConfig

SECTIONS = {"model": ModelConfig, "head": HeadConfig, "select": Selection, "view": View, "cache": CacheConfig,
            "loader": LoaderConfig, "train": TrainConfig}


def read_arguments(words: list[str], description: str | None = None) -> Namespace:
    """The command line; `stages` maps names to Namespaces of the same sections, with `data` and `stage`."""
    words, changes = split_flags(words)
    parser = ConfigParser(prog="train.py", description=description)
    parser.add_argument("--config", action="config", help="YAML preset; later flags win over it")
    parser.add_argument("--data", type=str, required=True, help="dataset that make_shards.py wrote: folder or s3://…")
    parser.add_argument("--out", type=str, required=True, help="folder of this run")
    parser.add_argument("--allow-changed-data", action="store_true",
                        help="continue on another dataset or selection, of as many classes")
    for name, section in SECTIONS.items():
        parser.add_class_arguments(section, name)
    parser.add_argument("--stages", type=dict[str, dict[str, Any]], default={}, help=stages.__doc__)
    given = parser.read(words)
    args = parser.build(given.as_dict() | {"config": None})
    args.stages = {}
    for name, diff in merge(given.stages, changes).items() or [(ONLY, {})]:
        own, sections = options(name, diff, {name: given[name].as_dict() for name in SECTIONS})
        args.stages[name] = parser.build(given.as_dict() | sections | {"config": None},
                                         "" if name == ONLY else f"stages.{name}: ")
        args.stages[name].stage, args.stages[name].data = own, own.data or args.data
    return args


def sections_of(run: Namespace) -> Stages:
    """The options of each stage, as `read_arguments` returned them."""
    return {name: {section: args[section] for section in ("stage", *SECTIONS)} for name, args in run.stages.items()}

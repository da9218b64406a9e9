"""Every command of arcshard under one name; each is also a script of the repository.

    arcshard COMMAND [OPTIONS], arcshard COMMAND --help, arcshard --version

Presets are found without the repository: arcshard train --config configs/demo.yaml.

commands:
"""
import importlib.metadata
import sys
from importlib import import_module

from arcshard.console import Parser, run

COMMANDS = {  # name: module, words that go before those given, what it does
    "fetch": ("preprocess.fetch", [], "download a data set from Kaggle or the web"),
    "clean": ("preprocess.clean", [], "make the sample table of a CSV or a tree of folders"),
    "label-map": ("preprocess.label_map", [], "say which label each class had and has now"),
    "duplicates": ("preprocess.duplicates", [], "list near duplicates"),
    "pack": ("preprocess.make_shards", [], "pack photos into shards (preprocess/make_shards.py)"),
    "shards": ("shards.__main__", [], "verify, describe, repair or adopt a dataset"),
    "train": ("train", [], "train an embedding; on several GPUs: torchrun -m train"),
    "evaluate": ("evaluate", [], "measure a run"),
    "predict": ("predict", [], "answer photos"),
    "serve": ("retrieval.__main__", ["serve"], "a page to drop photos on"),
    "report": ("report", [], "write the page of a run or a dataset"),
    "export": ("export", [], "write a run's network as ONNX or safetensors"),
    "tune": ("tune", [], "tune the numbers of a re-ranking pipeline"),
    "training": ("training.__main__", [], "average the weights of runs, or fit a run to unseen landmarks"),
    "retrieval": ("retrieval.__main__", [], "embed, search, benchmark, re-rank"),
    "loader": ("loader.__main__", [], "look at what training will see"),
    "demo-data": ("preprocess.demo_data", [], "make the demo's photos"),
}


def main() -> int | None:
    lines = [f"    {name:12}{text}" for name, (_, _, text) in COMMANDS.items()]
    parser = Parser(prog="arcshard", description="\n".join([str(__doc__).rstrip(), *lines]))
    parser.add_argument("--version", action="version", version=f"arcshard {importlib.metadata.version('arcshard')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        commands.add_parser(name, add_help=False)  # the command explains itself
    args, words = parser.parse_args(sys.argv[1:2]), sys.argv[2:]
    module, first, _ = COMMANDS[args.command]
    sys.argv = [f"arcshard {args.command}", *first, *words]
    return import_module(module).main()


def command() -> None:
    run(main)


if __name__ == "__main__":
    command()

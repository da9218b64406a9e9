"""LightGBM's text of a booster, checked: it ends the process for one that is damaged, and reads beyond its arrays."""
import re

# Numbers of a tree by field: one a leaf, or one a split.
LEAVES = ("leaf_value", "leaf_weight", "leaf_count")
SPLITS = ("split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child", "internal_value",
          "internal_weight", "internal_count")
OTHERS = {"Tree", "num_leaves", "num_cat", "is_linear", "shrinkage"}


def check_booster(text: str, features: int, classes: int) -> None:
    """Raise ValueError, or KeyError, unless LightGBM can read the text and predict so many classes by its trees.

    Args:
        features: their number; all are numbers, no categories.
    """
    head, *trees = re.split("^(?=Tree=)", text.partition("end of trees\n")[0], flags=re.MULTILINE)
    fields = _fields(head)
    for name in ("num_class", "num_tree_per_iteration"):
        _require(fields[name] == f"{classes}", name)
    _require(fields["max_feature_idx"] == f"{features - 1}", "max_feature_idx")
    _require(fields["objective"] == f"multiclass num_class:{classes}", "objective")
    _require(fields["tree_sizes"].split() == [f"{len(tree.encode())}" for tree in trees], "tree_sizes")
    for tree in trees:
        _check_tree(_fields(tree), features)


def _check_tree(tree: dict[str, str], features: int) -> None:
    _require(tree.keys() <= {*LEAVES, *SPLITS, *OTHERS}, "fields")
    _require((tree["num_cat"], tree["is_linear"]) == ("0", "0"), "kind of tree")
    leaves = int(tree["num_leaves"])
    counts = dict.fromkeys(SPLITS, leaves - 1) | dict.fromkeys(LEAVES, leaves)
    if leaves == 1:
        counts = {"leaf_value": 1}
    for name, count in counts.items():
        _require(len([*map(float, tree[name].split())]) == count, name)
    if leaves > 1:
        _require(all(0 <= int(feature) < features for feature in tree["split_feature"].split()), "split_feature")
    for side in ("left_child", "right_child") if leaves > 1 else ():
        for split, child in enumerate(map(int, tree[side].split())):
            # a leaf is its number's complement; later splits only, or the way through the tree might never end
            _require(split < child < leaves - 1 if child >= 0 else ~child < leaves, side)


def _fields(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.split("\n") if "=" in line)


def _require(fits: bool, what: str) -> None:
    if not fits:
        raise ValueError(f"a booster has a wrong {what}")

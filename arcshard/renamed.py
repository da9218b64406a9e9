"""Values of options that had another name in earlier versions."""

VALUES = {"head.init": {"random": "xavier"}, "train.batchnorm": {"held": "frozen"}}
"""Option -> old value -> new one: old files are read with the new one, the command line refuses the old one."""

"""Where resources come from: a folder of YAML files."""

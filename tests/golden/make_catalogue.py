"""Try every vision transformer of the installed timm: `python -m tests.golden.make_catalogue`.

It writes `igq/vit/catalogue.json`, and takes some minutes.
"""

import json
from pathlib import Path

import timm

from igq.vit import catalogue


def main() -> None:
    """Write the catalogue of the installed version."""
    names = [name for module in catalogue.MODULES for name in timm.list_models(module=module)]
    found = {name: catalogue.why_unsupported(name) for name in names}
    path = Path(catalogue.__file__).with_suffix(".json")
    path.write_text(json.dumps({"timm": timm.__version__, "models": found}, indent=0) + "\n")


if __name__ == "__main__":
    main()

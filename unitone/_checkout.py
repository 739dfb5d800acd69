"""Give a name back to the installed package that a folder of the checkout hides.

In a checkout the top-level folder ``tokenizers`` comes before Hugging Face's package of the same
name on ``sys.path``. Without this, whatever in Transformers needs a fast tokenizer would fail to
import in every process started in the root of the checkout.
"""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path


def give_back(name: str, file: str) -> None:
    """Put the installed package ``name`` in place of the folder of ``file``, and extend its path.

    Afterwards ``import name`` is the installed package, and ``python -m name.x`` still finds ``x``
    in our folder. Nothing happens where no other package of that name is installed.
    """
    here = Path(file).resolve().parent
    # neither this checkout nor another one, whose folder would look for the package in turn
    others = [entry for entry in sys.path if not _is_checkout(Path(entry).resolve(), here.parent)]
    spec = PathFinder.find_spec(name, others)
    if spec is None or spec.loader is None:
        return
    installed = module_from_spec(spec)
    sys.modules[name] = installed  # the import under way returns what stands here at its end
    spec.loader.exec_module(installed)
    installed.__path__.append(str(here))  # so that ``python -m tokenizers.build`` finds ours


def _is_checkout(folder: Path, own: Path) -> bool:
    ours = (folder / "unitone" / Path(__file__).name, folder / "tokenizers" / "build.py")
    return folder == own or all(path.is_file() for path in ours)

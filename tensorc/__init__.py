"""tensorc: a tensor-expression compiler behind the classic Keras-2 backend API."""

from pathlib import Path as _Path

# passes/, codegen/ and runtime/ stand beside this folder in the repository and
# inside it in an installed wheel.  In a checkout, let the import system look there.
_here = _Path(__file__).resolve().parent
if not (_here / "passes").is_dir() and (_here.parent / "passes" / "__init__.py").is_file():
    __path__.append(str(_here.parent))

__version__ = "0.1.0"
__all__ = ["__version__"]

"""%load_ext perfnb: how perfnb's values are shown, and its magics."""

from perfnb.magics.display import register_display
from perfnb.magics.extension import load_ipython_extension, unload_ipython_extension

__all__ = ["load_ipython_extension", "register_display", "unload_ipython_extension"]

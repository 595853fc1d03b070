"""Have Python import the packages of the folder that it runs in, not those that are installed.

An editable install finds packages before the path does. With this folder first on PYTHONPATH, and
then another checkout, Python runs that checkout: `PYTHONPATH=tests/here:$PWD`.
"""

import sys

sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in type(f).__module__]

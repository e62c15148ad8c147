"""`PORT=8080 python3 -m shop`."""

import os

from shop.server import serve
from shop.settings import read

serve(int(os.environ.get("PORT", "8080")), read())

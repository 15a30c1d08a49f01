"""The ASGI app of the MONAI Label server: `monailabel start_server ... --uvicorn_app server:app`.

MONAI Label's own app answers, unchanged; around it stand the guards of `lib.serving`, and every request runs in a
thread, so that /info answers while another image is being segmented.
"""

import os

os.environ.setdefault("MONAI_LABEL_RELOAD_APP_LIB", "false")  # one copy of `lib`, for the server and for the app

from lib.parent import SERVER  # noqa: E402
from lib.serving.gate import make_app  # noqa: E402
from lib.serving.limits import Limits  # noqa: E402
from lib.serving.tokens import read_algorithms  # noqa: E402
from monailabel.app import app as stock  # noqa: E402

os.environ[SERVER] = str(os.getpid())
read_algorithms(os.environ.get("SEGVOL_AUTH_ALGORITHMS", ""))
app = make_app(Limits.from_environment(os.environ), stock)

"""Would the services start with these settings, and is what they name as it should be?

Start reading in `checking`, which reads settings and knows no network; `connecting` looks at what they lead to.
"""

from ops.config.command import config

__all__ = ["config"]

"""Why is, or is not, an order right?

Each check of the audit that concerns one order, with the facts it looked at and what it says of them, and what a repair
would do. Start reading in `explaining`; `facts` puts what was looked at into words.
"""

from ops.explain.explaining import Explanation, explain
from ops.explain.report import render_explanation

__all__ = ["Explanation", "explain", "render_explanation"]

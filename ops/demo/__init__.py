"""Does Holdfast do its job on real input? `holdfast demo` answers: start at `run`."""

from ops.demo.rendering import render_summary
from ops.demo.run import run_demo
from ops.demo.summary import DemoSummary

__all__ = ["DemoSummary", "render_summary", "run_demo"]

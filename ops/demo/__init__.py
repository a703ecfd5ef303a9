"""Does Holdfast do its job on real input? `holdfast demo` answers: start at `run`."""

from ops.demo.run import run_demo
from ops.demo.summary import DemoSummary, render_summary

__all__ = ["DemoSummary", "render_summary", "run_demo"]

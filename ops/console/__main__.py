"""How is the console run as a process? `python -m ops.console`, until SIGTERM or Ctrl-C."""

from ops.console.main import main

main()

"""How do operators run Holdfast and prove that it is right? The command line `holdfast` and what it does."""

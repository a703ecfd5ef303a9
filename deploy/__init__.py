"""Where does Holdfast run: on one machine, in containers, in a cluster?"""

"""Does each piece work on the real parts?"""

"""Do the pure decisions and the house rules hold?"""

"""How is Holdfast proven?"""

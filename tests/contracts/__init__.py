"""Do messages keep the shapes that others rely on?"""

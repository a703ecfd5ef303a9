"""How fast is Holdfast, and what does an order cost? Figures come from here and nowhere else."""

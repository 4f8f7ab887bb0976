"""Model families, each as a tiny checkpoint with random weights: its tokenizer and template are
real, its config has the family's shape.
"""

"""Operations with more than one implementation: `reference.py` is the truth, the package dispatches."""

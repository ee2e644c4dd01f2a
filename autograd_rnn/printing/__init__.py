"""Equations as people read them: notation text, LaTeX, SymPy. Each printer is one loop over an expression's nodes."""

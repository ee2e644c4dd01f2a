"""Search for cells: mutate the equations, pass over what is invalid or known, rank the rest on tasks.

    Cell -> mutated -> refused? -> form (known?) -> judged on one task after the other

After Jozefowicz, Zaremba, Sutskever, An empirical exploration of recurrent network architectures, ICML 2015.
"""

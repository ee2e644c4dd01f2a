"""Systems as machine code, by LLVM (the extra `fast`): imported where it is asked for, and nowhere else.

    lanes, products     vectors of numbers as instructions; matrix products from them
    places              where values lie, and what a function sees of it
    rows, reduce        stages over the rows of examples
    totals              sums over all rows
    partition           a schedule cut into stages
    native              a module as code of this processor
    space               the memory of a run, and the run
    stretches, shares   the same within a budget: some steps at a time, or some examples
    machine, replay     a system as a program over arrays; the same shapes again
"""

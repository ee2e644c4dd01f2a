"""Systems as machine code, by LLVM (the extra `fast`): imported where it is asked for, and nowhere else.

    lanes       vectors of numbers as instructions
    products    matrix products for a few rows, or a few columns, at a time
    stages      what happens between two arrays, as a function
    partition   a schedule cut into stages
    native      a module as code of this processor
    machine     a system as a program over arrays
"""

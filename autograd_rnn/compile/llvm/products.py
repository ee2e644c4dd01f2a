"""Matrix products as LLVM functions, for the shapes of recurrent networks: a few rows, or a few columns, at a time.

    pack        a weight, once a call      ->  panels [N / P][K][P], zeros beyond N, each read from end to end
    product     rows of a times panels     ->  rows of c, a row padded to whole panels
    correlate   sum over rows of u v'      ->  c, both sides packed block by block of rows

In the innermost loop a block of sums stays in registers (Goto and van de Geijn 2008): each k adds a number of each row
times a piece of the panel. A sum runs over k in order whatever rows stand beside it, so that how the rows are divided
among threads changes no bit.
"""

from __future__ import annotations

from llvmlite import ir

from .lanes import I64, POINTER, Lanes, Vector, folded, loop

BLOCK = 128  # rows that `correlate` packs at a time


class Products:
    """The functions of one module, for one float type; written when first asked for."""

    def __init__(self, module: ir.Module, double: bool, width: int, rows: int):
        self.module, self.double, self.width, self.rows = module, double, width, rows
        self.panel = 2 * width

    def _function(self, name: str, kinds: str, write) -> ir.Function:
        """A function by name; its arguments are whole numbers, n, and addresses, p; `write(lanes, *args)` fills it."""
        found = self.module.globals.get(name)
        if found is None:
            arguments = [POINTER if kind == "p" else I64 for kind in kinds]
            found = ir.Function(self.module, ir.FunctionType(ir.VoidType(), arguments), name)
            found.linkage = "internal"
            builder = ir.IRBuilder(found.append_basic_block("entry"))
            write(Lanes(builder, self.double, self.width), *found.args)
            builder.ret_void()
        return found

    @staticmethod
    def _number(n: int):
        return ir.Constant(I64, n)

    @property
    def pack(self) -> ir.Function:
        """panels[n / P][k][n % P] = source[n * by_n + k * by_k] for n in [first, last), k in [0, count) from k0."""
        def write(v, source, by_n, by_k, panels, depth,
                  first, last, k0, count):
            b, panel = v.builder, self._number(self.panel)

            def one(n):
                base = b.mul(b.mul(b.sdiv(n, panel), depth), panel)
                base = b.add(b.add(base, b.srem(n, panel)), b.mul(k0, panel))
                start = b.mul(b.sub(n, first), by_n)

                def copy(k):
                    value = b.load(v.address(source, b.add(start, b.mul(k, by_k))), typ=v.scalar)
                    b.store(value, v.address(panels, b.add(base, b.mul(k, panel))))

                loop(b, self._number(0), count, 1, copy)

            loop(b, first, last, 1, one)

        return self._function("pack", "pnnpnnnnn", write)

    def _block(self, v: Lanes, a: list, a_step: int, panel, depth, start: list) -> list:
        """start[i][j] + sum over k of a[i][k] panel[k][j]: the sums that stay in registers."""
        b = v.builder
        before, head, inside, after = b.block, *(b.function.append_basic_block(n) for n in ("sums", "term", "done"))
        b.branch(head)
        b.position_at_end(head)
        k = b.phi(I64)
        k.add_incoming(self._number(0), before)
        sums = []
        for row in start:
            sums.append([b.phi(v.type) for _ in row])
            for phi, first in zip(sums[-1], row):
                phi.add_incoming(first.value, before)
        b.cbranch(b.icmp_signed("<", k, depth), inside, after)
        b.position_at_end(inside)
        piece = v.address(panel, b.mul(k, self._number(self.panel)))
        columns = [v.load(v.address(piece, self._number(j * v.width))) for j in range(2)]
        at = b.mul(k, self._number(a_step)) if a_step != 1 else k
        for row, source in zip(sums, a):
            one = v.load_one(v.address(source, at))
            for phi, column in zip(row, columns):
                phi.add_incoming(v.call("fma", one, column, Vector(v, phi)).value, inside)
        k.add_incoming(b.add(k, self._number(1)), inside)
        b.branch(head)
        b.position_at_end(after)
        return [[Vector(v, phi) for phi in row] for row in sums]

    @property
    def product(self) -> ir.Function:
        """c[r, :] = a[r, :] @ panels for r in [0, rows); a row of c is a whole number of panels long."""
        def write(v, a, a_row, panels, c, c_row,
                  rows, depth, count):
            b, zero = v.builder, v.constant(0)

            def one_panel(p):
                panel = v.address(panels, b.mul(b.mul(p, depth), self._number(self.panel)))
                column = b.mul(p, self._number(self.panel))

                def block(size):
                    def compute(r):
                        sources = [v.address(a, b.mul(b.add(r, self._number(i)), a_row)) for i in range(size)]
                        sums = self._block(v, sources, 1, panel, depth, [[zero, zero] for _ in range(size)])
                        for i, row in enumerate(sums):
                            target = v.address(c, b.add(b.mul(b.add(r, self._number(i)), c_row), column))
                            for j, x in enumerate(row):
                                v.store(x, v.address(target, self._number(j * v.width)))

                    return compute

                done, size = self._number(0), self.rows
                while size:
                    last = b.sub(rows, b.srem(b.sub(rows, done), self._number(size)))
                    loop(b, done, last, size, block(size))
                    done, size = last, size // 2

            loop(b, self._number(0), count, 1, one_panel)

        return self._function("product", "pnppnnnn", write)

    def correlate(self, sides: int) -> ir.Function:
        """c[i, j] = sum over rows r of u[r, i] v[r, j], and sums[i] = sum of u[r, i], for i in [first, last).

        v is `sides` matrices beside each other, each from a new panel on: for u, and for each of them, an address, and
        how far the next outer and the next inner row lie; then the counts of outer and inner rows, the width of each
        v, u's width, first (a multiple of the vector's width), last, whether c and sums hold the sums of later rows
        already, c, sums, scratch: a table of BLOCK offsets a
        matrix, BLOCK vectors of u, BLOCK rows of panels of v. c is padded to whole vectors down, whole panels across.
        """
        def write(x, *arguments):
            b, n = x.builder, self._number
            matrices = [arguments[3 * k:3 * k + 3] for k in range(sides + 1)]
            outer, inner, *widths = arguments[3 * sides + 3:4 * sides + 5]
            height, first, last, begun, c, sums, scratch = arguments[4 * sides + 5:]
            panel, block = n(self.panel), n(BLOCK)
            starts = [n(0)]  # in panels
            for width in widths:
                starts.append(b.add(starts[-1], b.sdiv(b.add(width, n(self.panel - 1)), panel)))
            panels = starts[-1]
            c_row, rows = b.mul(panels, panel), b.mul(outer, inner)
            tables = [b.gep(scratch, [n(8 * BLOCK * k)], source_etype=ir.IntType(8)) for k in range(sides + 2)]
            tile = tables.pop()
            packed = x.address(tile, n(BLOCK * x.width))

            def offset(table, k):
                return b.load(b.gep(table, [k], source_etype=I64), typ=I64)

            def one_block(done):
                r0 = b.sub(b.mul(b.sdiv(b.sub(rows, n(1)), block), block), done)  # the last block first
                more = b.or_(b.icmp_signed(">", done, n(0)), b.icmp_signed("!=", begun, n(0)))
                left = b.sub(rows, r0)
                count = b.select(b.icmp_signed("<", left, block), left, block)

                def locate(k):
                    r = b.add(r0, k)
                    o, i = b.sdiv(r, inner), b.srem(r, inner)
                    for table, (_, by_outer, by_inner) in zip(tables, matrices):
                        b.store(b.add(b.mul(o, by_outer), b.mul(i, by_inner)), b.gep(table, [k], source_etype=I64))

                loop(b, n(0), count, 1, locate)

                def pack_row(k):
                    for (v, *_), table, width, start, end in zip(matrices[1:], tables[1:], widths, starts, starts[1:]):
                        source = x.address(v, offset(table, k))

                        def piece(j, source=source, width=width, start=start):
                            p = b.add(start, b.sdiv(j, panel))
                            place = b.add(b.mul(b.mul(p, block), panel), b.srem(j, panel))
                            target = x.address(packed, b.add(place, b.mul(k, panel)))
                            x.store(x.load(x.address(source, j), x.first(b.sub(width, j))), target)

                        loop(b, n(0), b.mul(b.sub(end, start), panel), x.width, piece)

                loop(b, n(0), count, 1, pack_row)

                def one_tile(i):
                    fits = x.first(b.sub(height, i))

                    def pack_u(k, total):
                        part = x.load(x.address(matrices[0][0], b.add(offset(tables[0], k), i)), fits)
                        x.store(part, x.address(tile, b.mul(k, n(x.width))))
                        return total + part

                    place = x.address(sums, i)
                    before = x.choose(more, x.load(place), 0)
                    x.store(before + folded(x, n(0), count, x.constant(0), pack_u), place)
                    for shift in range(0, x.width, self.rows):
                        one_strip(b.add(i, n(shift)), x.address(tile, n(shift)))

                def one_strip(i, strip):
                    def one_panel(p):
                        corner = x.address(c, b.add(b.mul(i, c_row), b.mul(p, panel)))
                        places = [[x.address(corner, b.add(b.mul(n(k), c_row), n(j * x.width))) for j in range(2)]
                                  for k in range(self.rows)]
                        begin = [[x.choose(more, x.load(q), 0) for q in row] for row in places]
                        sources = [x.address(strip, n(k)) for k in range(self.rows)]
                        piece = x.address(packed, b.mul(b.mul(p, block), panel))
                        found = self._block(x, sources, x.width, piece, count, begin)
                        for row, targets in zip(found, places):
                            for value, q in zip(row, targets):
                                x.store(value, q)

                    loop(b, n(0), panels, 1, one_panel)

                loop(b, first, last, x.width, one_tile)

            loop(b, n(0), rows, BLOCK, one_block)

        return self._function(f"correlate{sides}", "pnn" * (sides + 1) + "nn" + "n" * sides + "nnnnppp", write)

    def correlate_scratch(self, sides: int, width: int) -> int:
        """The bytes of scratch that `correlate` wants for `sides` matrices, together so many numbers wide."""
        return 8 * BLOCK * (sides + 1) + (8 if self.double else 4) * BLOCK * (self.width + width) + 64

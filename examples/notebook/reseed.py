"""Run by every kernel when it starts: one that ran before the snapshot would draw the same numbers in all clones."""


def _reseed_in_clones(shell):
    import random
    import sys
    from pathlib import Path

    seeded = Path("/etc/machine-id").read_text()

    def reseed(_cell):
        nonlocal seeded
        machine = Path("/etc/machine-id").read_text()
        if machine != seeded:
            seeded = machine
            random.seed()
            if numpy := sys.modules.get("numpy"):
                numpy.random.seed()

    shell.events.register("pre_run_cell", reseed)


_reseed_in_clones(get_ipython())  # noqa: F821  IPython's
del _reseed_in_clones

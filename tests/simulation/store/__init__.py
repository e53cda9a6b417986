"""A few real stores on faulty disks, and a model of what each must hold.

One replica leads, the others copy its log with the batches that its store gives out. What decides about them (epochs, who is in sync,
the commit index) is a model that makes no mistakes; so whatever is lost or wrong, the store lost it or got it wrong.

`written` is what was ever appended, `replica` a store with its disk and what it must hold, `checks` compares the two, `partition`
is the replicas together, `plan` makes a seed's list of operations, and `world` carries them out.
"""

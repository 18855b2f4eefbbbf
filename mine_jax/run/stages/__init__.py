"""The stages as steps of a run: what each reads, computes, plans and writes, one file each."""

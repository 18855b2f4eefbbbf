"""One file per stage of a run: what it reads, computes, shares with other processes, plans and writes."""

"""One module per section of the report: files of a run enter, a `Section` leaves."""

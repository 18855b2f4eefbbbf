"""The families of frozen models that there are ports of: what each reads, and how large its usual models are."""

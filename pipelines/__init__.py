"""The Dask jobs by name; each is a short script over the same stages as `sesgrid run`."""

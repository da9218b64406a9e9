"""Tasks on the cores of this machine, or on the machines of a dask or ray cluster."""

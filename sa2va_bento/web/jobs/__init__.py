"""Video over HTTP: jobs are handed in, watched, fetched and cancelled."""

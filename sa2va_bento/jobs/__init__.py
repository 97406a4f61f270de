"""Video jobs: kept on disk until they are answered and fetched, whatever happens to the process."""

"""A load test for Locust: the users of `locustfile.py`, what they show, and how their answers are checked."""

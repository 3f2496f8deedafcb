"""run-service owns runs, their activities and their dispatch; it never computes and never decides freshness."""
